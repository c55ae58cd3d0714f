"""DER: masks over channels, pruned networks, bodies side by side, and the method on them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from outside import Tiny
from small import classifier, images
from test_bundle import logits, same, squares
from torch import Tensor, nn

import classgraft
from classgraft import InputError
from classgraft.data.images import Images, Task
from classgraft.data.sources import load, open_source
from classgraft.evaluator.bench import bench
from classgraft.evaluator.protocols import Split
from classgraft.evaluator.settings import Setting
from classgraft.evaluator.start import Start
from classgraft.extenders import der
from classgraft.extenders.der import DER
from classgraft.extenders.exemplars import Replay
from classgraft.losses.expansion import weights_in_use
from classgraft.models import cifar_resnet
from classgraft.models.channels import FLOOR, IMAGES, Masked, plan, soft_mask
from classgraft.models.cifar_resnet import CifarResNet
from classgraft.models.classifier import Classifier, Head
from classgraft.models.cut import cut, headless
from classgraft.models.kinds import build
from classgraft.models.preparation import Preparation
from classgraft.models.pruned import Pruned, pruned
from classgraft.models.rows import fresh, narrow, widened
from classgraft.models.side_by_side import SideBySide, bodies, successor
from classgraft.models.structure import PLAIN, plain, spec
from classgraft.training import engine as engines
from classgraft.training import loop
from classgraft.training.answers import answers
from classgraft.training.exemplars import Exemplars
from classgraft.training.recipe import Recipe

SHORT = Recipe(epochs=2, batch_size=8, lr=0.05)
NAMES = ("ant", "bee", "cow", "dog", "elk", "fox")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -- the loss and the masks -----------------------------------------------------------------------------------------


def test_weights_in_use_worked_by_hand() -> None:
    # two convolutions, 3x3 from 2 channels to 2 and 1x1 from 2 to 1: 9*2*2 + 1*2*1 = 38 weights;
    # open 9 * 2 * 1.5 + 1 * 1.5 * 0.5 = 27.75
    masks = [torch.ones(2), torch.tensor([1.0, 0.5]), torch.tensor([0.5])]
    assert float(weights_in_use([9, 1], masks[:2], masks[1:])) == pytest.approx(27.75 / 38)


def test_weights_in_use_equals_a_count_of_single_weights() -> None:
    masks = [drawn(3), drawn(4, seed=1), drawn(2, seed=2)]
    open_, all_ = 0.0, 0
    for area, before, after in ((9, masks[0], masks[1]), (1, masks[0], masks[2]), (9, masks[1], masks[2])):
        for a in before.tolist():
            for b in after.tolist():
                open_, all_ = open_ + area * a * b, all_ + area
    found = weights_in_use([9, 1, 9], [masks[0], masks[0], masks[1]], [masks[1], masks[2], masks[2]])
    assert float(found) == pytest.approx(open_ / all_, rel=1e-12)


def test_open_masks_use_every_weight_and_each_closed_channel_fewer() -> None:
    ones = [torch.ones(3), torch.ones(5), torch.ones(4)]
    assert float(weights_in_use([9, 9], ones[:2], ones[1:])) == 1
    for layer, channel in ((1, 0), (1, 4), (2, 3)):
        closed = [mask.clone() for mask in ones]
        closed[layer][channel] = 0
        assert float(weights_in_use([9, 9], closed[:2], closed[1:])) < 1


def test_the_gradient_of_weights_in_use() -> None:
    first, second = drawn(3).requires_grad_(), drawn(4, seed=1).requires_grad_()
    ones = torch.ones(3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a, b: weights_in_use([9, 1], [ones, a], [a, b]), (first, second))


def test_a_mask_goes_from_half_open_to_open_or_closed() -> None:
    scores = torch.tensor([2.0, -0.5, 0.0])
    for compensated in (True, False):
        torch.testing.assert_close(
            soft_mask(scores, 1.0, compensated), torch.tensor([0.880797, 0.377541, 0.5]), atol=1e-6, rtol=0
        )
        torch.testing.assert_close(soft_mask(scores, 1 / 400, compensated), torch.full((3,), 0.5), atol=2e-3, rtol=0)
        assert soft_mask(scores, 1e4, compensated)[:2].tolist() == pytest.approx([1, 0], abs=1e-7)


@pytest.mark.parametrize("scale", [0.0025, 1.0, 7.0])
def test_compensation_takes_the_scale_out_of_the_gradient(scale: float) -> None:
    """g' = sigma(e) (1 - sigma(e)) / (s sigma(s e) (1 - sigma(s e))) g, for any loss of the masks."""
    scores, weight = 3 * drawn(5) - 1.5, drawn(5, seed=1)
    gradients = []
    for compensated in (False, True):
        e = scores.clone().requires_grad_()
        gradients.append(torch.autograd.grad((weight * soft_mask(e, scale, compensated)).sum(), e)[0])
    smooth, sharp = scores.sigmoid(), (scale * scores).sigmoid()
    factor = smooth * (1 - smooth) / (scale * sharp * (1 - sharp))
    torch.testing.assert_close(gradients[1], factor * gradients[0])


def test_the_strongest_channel_of_a_group_never_closes() -> None:
    scores = torch.tensor([-3.0, -1.0, -2.0], requires_grad=True)
    mask = soft_mask(scores, 400.0, True)
    assert mask.tolist() == pytest.approx([0, 1, 0], abs=1e-6)
    assert torch.autograd.grad(mask.sum(), scores)[0][1] == 0
    assert torch.equal(soft_mask(torch.tensor([1.0, FLOOR]), 1.0, False), torch.tensor([1.0, FLOOR]).sigmoid())


# -- channels -------------------------------------------------------------------------------------------------------


def timm_resnet(name: str = "resnet18") -> nn.Module:
    timm = pytest.importorskip("timm")
    return cut(timm.create_model(name, num_classes=2), ("a", "b")).body


def residual(projection: bool = False, blocks: tuple[int, ...] = (2, 1), widths: tuple[int, ...] = (4, 7)) -> nn.Module:
    """A ResNet of some hundred weights with an odd number of channels to pad."""
    return headless(CifarResNet(blocks, widths, projection, 2), "linear")


BODIES: dict[str, Callable[[], nn.Module]] = {
    "padded": residual,
    "projected": lambda: residual(True),
    "timm": timm_resnet,
}


@pytest.fixture(params=list(BODIES))
def body(request: pytest.FixtureRequest) -> nn.Module:
    """In evaluation mode, as if it had been trained."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = BODIES[request.param]()
        for part in found.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.normal_()
                part.running_var.uniform_(0.5, 2)
                nn.init.uniform_(part.weight, 0.5, 2)
                nn.init.normal_(part.bias)
    return found.eval()


def pictures(side: int = 16) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


def half_open(body: nn.Module) -> Masked:
    masked = Masked(body).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for gate in masked.gates.values():
            gate.scores.copy_(torch.randn(len(gate.scores), generator=generator))
    return masked


def hard(masked: Masked) -> dict[str, Tensor]:
    """Masks of zeros and ones."""
    kept, widths = masked.kept(), masked.plan.widths
    return {g: torch.zeros(w).index_fill(0, kept[g], 1.0) if g in kept else torch.ones(w) for g, w in widths.items()}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_what_is_added_together_is_one_group() -> None:
    known = plan(headless(cifar_resnet.build("resnet20", 2), "linear"))
    assert known.groups[:4] == ("stem", "layer1_0", "layer1_1", "layer1_2")
    assert known.widths["stem"] == 16
    assert (known.last, known.widths["layer3"]) == ("layer3", 64)
    assert known.padded == (("layer2.0.shortcut", "stem", "layer2"), ("layer3.0.shortcut", "layer2", "layer3"))
    assert len(known.layers) == 19
    assert {layer.outside for layer in known.layers if layer.conv.endswith("conv2")} == {"stem", "layer2", "layer3"}
    wide = plan(timm_resnet())
    assert [layer.conv for layer in wide.layers if layer.area != 9] == [
        "conv1", "layer2.0.downsample.0", "layer3.0.downsample.0", "layer4.0.downsample.0",
    ]  # fmt: skip
    assert (wide.widths[IMAGES], wide.widths["stem"], wide.widths["layer4"]) == (3, 64, 512)
    assert plan(timm_resnet("resnet34")).last == "layer4"


@torch.no_grad()
def test_a_network_with_open_masks_is_the_network(body: nn.Module) -> None:
    masked = Masked(body).eval()
    ones = {group: torch.ones(width) for group, width in masked.plan.widths.items()}
    close(masked(pictures(), ones), body(pictures()))
    assert torch.equal(masked.plain()(pictures()), body(pictures()))
    assert masked.plain().state_dict().keys() == body.state_dict().keys()


@torch.no_grad()
def test_a_pruned_network_is_the_masked_one_without_what_is_closed(body: nn.Module) -> None:
    masked, before = half_open(body), copy.deepcopy(body.state_dict())
    found = pruned(masked.plain(), masked.kept())
    close(found(pictures()), masked(pictures(), hard(masked))[:, masked.kept()[masked.plan.last]])
    areas, *masks = masked.layers(hard(masked))
    convolutions = [part for part in found.modules() if isinstance(part, nn.Conv2d)]
    everything = sum(part.weight.numel() for part in body.modules() if isinstance(part, nn.Conv2d))
    left = sum(part.weight.numel() for part in convolutions)
    assert float(weights_in_use(areas, *masks)) == pytest.approx(left / everything, rel=1e-6)
    assert count(found) < 0.6 * count(body)
    assert work(found) < 0.6 * work(body)
    assert not [part for part in found.modules() if part.training]
    assert all(torch.equal(value, before[key]) for key, value in body.state_dict().items())


def work(module: nn.Module) -> int:
    """Multiplications of a forward pass."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        module(pictures())
    return counter.get_total_flops()


@torch.no_grad()
def test_a_widened_network_has_all_channels_and_begins_as_the_pruned_one(body: nn.Module) -> None:
    masked = half_open(body)
    found = pruned(masked.plain(), masked.kept())
    wide, before = found.widened(0), copy.deepcopy(found.state_dict())
    assert {k: v.shape for k, v in wide.state_dict().items()} == {k: v.shape for k, v in body.state_dict().items()}
    kept = masked.kept()[masked.plan.last]
    if not masked.plan.padded:
        close(wide(pictures())[:, kept], found(pictures()))
    close(pruned(wide, masked.kept())(pictures()), found(pictures()))  # and what it took over lies in its old places
    assert torch.equal(found.widened(0)(pictures()), wide(pictures()))
    assert not torch.equal(found.widened(1)(pictures()), wide(pictures()))
    assert all(torch.equal(value, before[key]) for key, value in found.state_dict().items())


def test_channels_that_come_back_learn() -> None:
    body = residual(True).eval()
    found = pruned(body, half_open(body).kept())
    wide = found.widened(0).train()
    wide(pictures()).square().sum().backward()
    new = [k for k in range(4) if k not in found.kept["stem"].tolist()]
    assert new
    for name in ("conv1", "layer1.0.conv2"):
        assert bool((wide.get_submodule(name).weight.grad[new].flatten(1).norm(dim=1) > 0).all())
    assert bool((wide.layer1[0].conv1.weight.grad[:, new] != 0).any())  # and what was there learns to read them


@torch.no_grad()
def test_bodies_and_pruned_networks_come_back_from_a_tree_of_json(body: nn.Module) -> None:
    masked = half_open(body)
    beside = SideBySide([body, pruned(body, masked.kept()), pruned(body, {**masked.kept(), "stem": torch.arange(1)})])
    tree = json.loads(json.dumps(spec(beside)))
    assert [part["kind"] for part in tree["inner"]] == ["plain", "pruned", "pruned"]
    assert tree["inner"][1]["stem"] == len(masked.kept()["stem"])
    assert tree["inner"][2]["stem"] == 1
    again = build(tree, body).eval()
    again.load_state_dict(beside.state_dict())
    assert torch.equal(again(pictures()), beside(pictures()))
    assert torch.equal(plain(beside)(pictures()), body(pictures()))
    shapes = {key: value.shape for key, value in plain(beside.bodies[1]).state_dict().items()}
    assert shapes == {key: value.shape for key, value in body.state_dict().items()}


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"stem": 4, "layer1_0": 4, "layer1_1": 5, "layer2_0": 7, "layer2": 7}, "5 channels of 'layer1_1'.* has 4"),
        ({"stem": 4, "layer1_0": 0, "layer1_1": 4, "layer2_0": 7, "layer2": 7}, "0 channels of 'layer1_0'"),
        ({"stem": 4, "layer1_0": 4, "layer1_1": 4, "layer2_0": 7}, "0 channels of 'layer2'"),
        ({"stem": 4, "layer1_0": 4, "layer1_1": 4, "layer2_0": 7, "layer2": 7, "layer9": 1}, "'layer9'"),
        ({"stem": 10**12}, "size"),
    ],
)
def test_widths_that_no_network_has_are_refused(tree: dict[str, int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        build({"kind": "pruned", "inner": [PLAIN], **tree}, residual())
    with pytest.raises(InputError, match="none"):
        build({"kind": "beside", "inner": []}, residual())


@pytest.mark.parametrize("name", ["resnet50", "resnet18d", "mobilenetv2_035"])
def test_channels_of_other_networks_are_refused_in_a_sentence(name: str) -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        network = timm.create_model(name, num_classes=2)
    with pytest.raises(InputError, match=f"{type(network).__name__} is none of these; leave masks off"):
        plan(headless(network, str(network.default_cfg["classifier"])))


def test_the_next_body_starts_from_the_newest_at_full_width() -> None:
    first, second = residual().eval(), residual().eval()
    narrow_ = pruned(second, half_open(second).kept())
    assert torch.equal(successor(SideBySide([first, second]), 0)(pictures()), second(pictures()))
    assert successor(SideBySide([first, second]), 0) is not second
    assert torch.equal(successor(SideBySide([first, narrow_]), 3)(pictures()), narrow_.widened(3)(pictures()))
    assert bodies(first) == [first]


def test_rows_are_widened_and_narrowed_around_what_they_know() -> None:
    draw = torch.Generator().manual_seed(0)
    head = Head([fresh(2, 3, draw), nn.Linear(3, 1, bias=False)])
    wide = widened(head, 2, draw)
    assert torch.equal(wide.weight[:, :3], head.weight)
    assert torch.equal(wide.bias, torch.zeros(3))
    assert wide.weight[:, 3:].abs().max() <= 5**-0.5
    assert wide.weight[:, 3:].abs().min() > 0
    full = wide.weight
    narrow(wide, 3, torch.tensor([1]))
    assert torch.equal(wide.weight, full[:, [0, 1, 2, 4]])
    assert wide.rows == (2, 1)
    assert wide(torch.ones(1, 4)).shape == (1, 3)


# -- the method -----------------------------------------------------------------------------------------------------


def start() -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Classifier(residual(), Head(), ()).eval()


def task(names: tuple[str, ...], each: int = 10, seed: int = 0) -> Task:
    shown = images(each * len(names), seed=seed)
    return Task(names, replace(shown, labels=torch.arange(len(shown)) % len(names), classes=names))


def inputs() -> Tensor:
    return images(6, seed=3).view(torch.arange(6), torch.device("cpu"))


def stream(method: DER, steps: tuple[tuple[str, ...], ...] = (NAMES[:2], NAMES[2:5], NAMES[5:])) -> list[Classifier]:
    model, memory, found = start(), None, []
    for names in steps:
        model = method.extend(model, memory, task(names))
        memory = method.remember(model, task(names), memory)
        found.append(model)
    return found


@pytest.mark.parametrize("masks", [False, True])
@torch.no_grad()
def test_old_features_keep_their_bits_and_new_ones_stand_beside_them(masks: bool) -> None:
    with torch.enable_grad():
        first, second, third = stream(DER(masks=masks, sparsity=10.0, exemplars=12, recipe=SHORT))
    for before, after in ((first, second), (second, third)):
        width = before.features(inputs()).shape[1]
        assert torch.equal(after.features(inputs())[:, :width], before.features(inputs()))
        assert after.features(inputs()).shape[1] > width
        old = {key: value for part in bodies(before.body) for key, value in part.state_dict().items()}
        kept = {key: value for part in bodies(after.body)[:-1] for key, value in part.state_dict().items()}
        assert all(torch.equal(kept[key], value) for key, value in old.items())
    assert [len(bodies(model.body)) for model in (first, second, third)] == [1, 2, 3]
    assert third.head.rows == (2, 3, 1)
    assert all(isinstance(part, Pruned) == masks for part in bodies(third.body))


def caught(method: DER, monkeypatch: pytest.MonkeyPatch, after: int = 0) -> dict[str, Any]:
    """What the ``after``-th fit of a second task is given, and its terms on all images at a quarter of an epoch."""
    found: dict[str, Any] = {}
    (model,) = stream(replace(method, masks=False), (NAMES[:3],))
    memory = method.remember(model, task(NAMES[:3]), None)

    def catching(module: nn.Module, objective: Any, shown: Images, recipe: Recipe, *given: Any, **named: Any) -> Any:
        if found.setdefault("fits", 0) == after:
            found.update(module=module, before=copy.deepcopy(module).eval(), images=shown, recipe=recipe)
            index = torch.arange(len(shown))
            view = shown.view(index, torch.device("cpu"))
            batch = loop.Batch(view, shown.labels, index, 0.25, shown, 0, 0)
            found.update(view=view, terms={k: v.detach().clone() for k, v in objective(batch).items()})
        found["fits"] += 1
        return loop.fit(module, objective, shown, recipe, *given, **named)

    monkeypatch.setattr(der, "fit", catching)
    found.update(model=model, memory=memory, grown=method.extend(model, memory, task(NAMES[3:5])))
    return found


def test_the_terms_at_the_start_equal_slow_references(monkeypatch: pytest.MonkeyPatch) -> None:
    method = DER(auxiliary=0.5, masks=True, sparsity=2.0, scale=10.0, exemplars=9, recipe=replace(SHORT, epochs=1))
    found = caught(method, monkeypatch)
    model, before, view, labels = found["model"], found["before"], found["view"], found["images"].labels
    # the new body is a copy of the old; a quarter into the epoch s = 0.1 + 9.9 / 4
    masked, rows = Masked(model.body, seed=0).eval(), before["auxiliary"]
    masks = {group: (2.575 * gate.scores).sigmoid() for group, gate in masked.gates.items()} | {IMAGES: torch.ones(3)}
    with torch.no_grad():
        new = masked(view, masks)
        every = before["head"](torch.cat([model.features(view), new], 1)).log_softmax(1)
        told = rows(new).log_softmax(1)
        merged = [0 if k < 3 else k - 2 for k in labels.tolist()]
        n = len(merged)
        sums = sum(float(every[i, labels[i]]) for i in range(n)), sum(float(told[i, merged[i]]) for i in range(n))
        expected = {"all": -sums[0] / n, "auxiliary": -0.5 * sums[1] / n,
                    "sparsity": 2 * float(weights_in_use(*masked.layers(masks)))}  # fmt: skip
    assert {key: float(value) for key, value in found["terms"].items()} == pytest.approx(expected, rel=1e-4)
    assert (rows.out_features, before["head"].rows) == (3, (3, 2))
    assert torch.equal(before["head"].weight[:3, :7], model.head.weight)
    assert sorted(set(merged)) == [0, 1, 2]


def test_s_goes_through_its_range_in_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    honest = Masked.masks

    def noting(self: Masked, scale: float, *given: Any) -> dict[str, Tensor]:
        seen.append(scale)
        return honest(self, scale, *given)

    monkeypatch.setattr(Masked, "masks", noting)
    method = DER(masks=True, scale=40.0, recipe=replace(SHORT, batch_size=10))
    method.extend(start(), None, task(NAMES[:4]))
    assert seen == pytest.approx([1 / 40, 1 / 40 + (40 - 1 / 40) / 3, 1 / 40 + (40 - 1 / 40) * 2 / 3, 40] * 2)
    seen.clear()
    method.extend(start(), None, task(NAMES[:1]))  # one batch: sharp at once, as it will be used
    assert seen == [40.0, 40.0]


def test_the_balanced_stage_sees_as_many_images_of_every_class_and_moves_the_head_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = caught(DER(exemplars=9, balancing=1.0, temperature=3.0, recipe=SHORT), monkeypatch, after=1)
    assert found["fits"] == 2
    assert found["images"].labels.bincount().tolist() == [3] * 5
    assert (found["recipe"].epochs, found["recipe"].milestones) == (2, (0.5,))
    assert found["module"] is found["grown"].head
    grown, control = found["grown"], DER(exemplars=9, finish="none", recipe=SHORT)
    unbalanced = control.extend(found["model"], found["memory"], task(NAMES[3:5]))
    assert torch.equal(grown.features(inputs()), unbalanced.features(inputs()))
    assert not torch.equal(grown.head.weight, unbalanced.head.weight)


def test_a_balanced_stage_of_no_epoch_leaves_the_head_that_was_learnt() -> None:
    """Not a fresh one that never learns."""
    _, grown = stream(DER(exemplars=9, balancing=0.0, recipe=SHORT), (NAMES[:2], NAMES[2:4]))
    _, control = stream(DER(exemplars=9, finish="none", recipe=SHORT), (NAMES[:2], NAMES[2:4]))
    assert torch.equal(grown.head.weight, control.head.weight)


def test_probabilities_are_those_at_the_temperature_that_was_learnt_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last fit's own logits over delta are the logits afterwards."""
    last: dict[str, Tensor] = {}

    def noting(module: nn.Module, *given: Any, **named: Any) -> Any:
        done = loop.fit(module, *given, **named)
        if isinstance(module, Head):
            last["weight"] = module.weight
        return done

    monkeypatch.setattr(der, "fit", noting)
    method = DER(exemplars=9, temperature=4.0, recipe=SHORT)
    grown = stream(method, (NAMES[:2], NAMES[2:4]))[-1]
    torch.testing.assert_close(grown.head.weight, last["weight"] / 4)


def test_aligned_rows_are_of_one_mean_length_and_features_as_without() -> None:
    _, grown = stream(DER(exemplars=9, finish="aligned", recipe=SHORT), (NAMES[:2], NAMES[2:4]))
    lengths = grown.head.weight.norm(dim=1)
    assert float(lengths[2:].mean()) == pytest.approx(float(lengths[:2].mean()), rel=1e-5)
    _, control = stream(DER(exemplars=9, finish="none", recipe=SHORT), (NAMES[:2], NAMES[2:4]))
    assert float(control.head.weight.norm(dim=1)[2:].mean()) != pytest.approx(
        float(control.head.weight.norm(dim=1)[:2].mean()), rel=1e-3
    )
    assert torch.equal(grown.features(inputs()), control.features(inputs()))


def test_the_recipes_of_the_authors_and_of_pycil() -> None:
    official, pycil = DER.official(), DER.pycil(exemplars=500)
    assert (official.finish, official.temperature, official.auxiliary, official.masks) == ("balanced", 5.0, 1.0, False)
    assert round(official.balancing * official.recipe.epochs) == 30
    assert [round(170 * at) for at in official.recipe.milestones] == [110, 130]
    assert (pycil.finish, pycil.exemplars, pycil.recipe.weight_decay) == ("aligned", 500, 2e-4)
    assert [round(170 * at) for at in pycil.recipe.milestones] == [80, 120, 150]
    assert (official.recipe.lr, official.recipe.batch_size, official.recipe.weight_decay) == (0.1, 128, 5e-4)


def test_masks_need_a_network_whose_channels_are_known() -> None:
    model = classifier()
    method = DER(masks=True, exemplars=9, recipe=SHORT)
    memory = method.remember(model, task(NAMES[:3]), None)
    with pytest.raises(InputError, match="Sequential is none of these; leave masks off"):
        method.extend(model, memory, task(NAMES[3:5]))
    grown = replace(method, masks=False).extend(model, memory, task(NAMES[3:5]))
    assert isinstance(grown.body, SideBySide)
    assert isinstance(memory, Exemplars)


def test_it_learns_the_same_when_its_body_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "BACKEND", "eager")
    method = DER(masks=True, exemplars=8, recipe=replace(SHORT, epochs=1))
    found = []
    for compiled in (False, True):
        with engines.engine(compile=compiled, precision="fp32", channels_last=False):
            found.append(stream(method, (NAMES[:2], NAMES[2:4]))[-1])
    assert torch.equal(found[0](inputs()), found[1](inputs()))


# -- its claims, on real images -------------------------------------------------------------------------------------

LEARN = Recipe(epochs=10, batch_size=25, lr=0.05, augment="none")


@pytest.fixture(scope="module")
def garments(data: Path) -> tuple[Images, Images]:
    """Fashion-MNIST at 16 pixels: six classes, 50 training and 40 test images of each."""
    found = []
    for part, each in (("train", 50), ("test", 40)):
        source = open_source(data / "fashion_mnist" / f"{part}.parquet")
        loaded = load(source, 16)
        whole = Images(loaded.pixels, loaded.labels, source.classes, Preparation(16, 16, (0.3,) * 3, (0.35,) * 3))
        found.append(whole.of(source.classes[:6]).shots(each, 0))
    return found[0], found[1]


def grown_on(method: Any, garments: tuple[Images, Images]) -> tuple[Classifier, float, float]:
    """Three classes and then three more; accuracy on the old and on the new, among all."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Classifier(residual(True, (1, 1), (8, 16)), Head(), ()).eval()
    memory = None
    for k in (0, 3):
        names = garments[0].classes[k : k + 3]
        part = Task(names, garments[0].of(names))
        model = method.extend(model, memory, part)
        memory = method.remember(model, part, memory)
    shown = garments[1].of(model.classes)
    right = (answers(model, shown).argmax(1) == shown.labels).float()
    return model, float(right[shown.labels < 3].mean()), float(right[shown.labels >= 3].mean())


def test_a_body_of_its_own_keeps_old_classes_better_than_replay(garments: tuple[Images, Images]) -> None:
    method = DER(exemplars=18, balancing=3.0, recipe=LEARN)
    _, old, new = grown_on(method, garments)
    _, replayed_old, _ = grown_on(Replay(exemplars=18, recipe=LEARN), garments)
    _, unbalanced_old, _ = grown_on(replace(method, finish="none"), garments)
    assert old > unbalanced_old + 0.1
    assert unbalanced_old >= replayed_old
    assert min(old, new) > 0.3


def test_the_sparsity_weight_buys_smaller_networks_and_nothing_is_cut_without_it(
    garments: tuple[Images, Images],
) -> None:
    sizes, right = {}, {}
    for weight in (0.0, 2.0, 6.0):
        method = DER(masks=True, sparsity=weight, exemplars=18, balancing=3.0, recipe=LEARN)
        model, old, new = grown_on(method, garments)
        sizes[weight], right[weight] = count(model.body), (old + new) / 2
    assert sizes[6.0] < 0.7 * sizes[2.0] < sizes[2.0] < 0.9 * sizes[0.0]
    assert right[2.0] > right[0.0] - 0.15


# -- streams, bundles and exports -----------------------------------------------------------------------------------


def test_it_goes_through_the_evaluator_s_stream(tmp_path: Path) -> None:
    shown = task(NAMES, 6).train
    setting = Setting(Split((2, 2, 2)), size=12, start=Start(residual), recipe=replace(SHORT, epochs=1), exemplars=12)
    methods = {"whole": "der", "pruned": DER(masks=True, sparsity=20.0, recipe=replace(SHORT, epochs=1, lr=0.5))}
    found = bench(methods, shown, shown.shots(3, 0), out=tmp_path / "out", protocol=setting)["methods"]
    whole, small = found["whole"][0], found["pruned"][0]
    assert 0 < small["parameters"] < whole["parameters"]
    assert len(whole["seen"]) == 3
    assert whole["bytes"] == small["bytes"] > 0


def network(classes: int = 3) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(classes)
        return CifarResNet((1, 1), (4, 6), False, classes)


SETTINGS = {"masks": True, "sparsity": 20.0, "epochs": 1, "batch_size": 4, "lr": 0.5, "exemplars": 12}


def two_extensions(**settings: Any) -> list[classgraft.Bundle]:
    bundle = classgraft.import_model(network(), classes=["c0", "c1", "c2"], size=16)
    steps = [bundle]
    for names in (("new", "newer"), ("last",)):
        old = {} if len(steps) > 1 else {"old_images": squares(bundle, bundle.classes, 4)}
        bundle = classgraft.extend(
            bundle, squares(bundle, names, 4), method="der", settings={**SETTINGS, **settings}, **old
        )
        steps.append(bundle)
    return steps


@pytest.mark.parametrize("masks", [False, True])
def test_a_bundle_is_saved_loaded_used_and_undone(masks: bool, tmp_path: Path) -> None:
    steps, folder = two_extensions(masks=masks), tmp_path / "b"
    classgraft.save(steps[-1], folder)
    loaded = classgraft.load(folder, network(7))
    assert same(loaded, steps[-1])
    tree = json.loads((folder / "config.json").read_text("utf-8"))["graft"]["body"]
    assert tree["kind"] == "beside"
    assert [part["kind"] for part in tree["inner"]] == ["plain", *["pruned" if masks else "plain"] * 2]
    assert all(part["layer2"] <= 6 for part in tree["inner"][1:] if masks)
    assert loaded.memories["der"].content.nbytes > 0
    smaller = classgraft.remove(loaded, "newer")
    assert smaller.model(torch.zeros(1, 3, 16, 16)).shape == (1, 5)
    for earlier in reversed(steps[:-1]):
        before = classgraft.undo(classgraft.load(folder, network()))
        assert same(before, earlier)
        classgraft.save(before, folder)
    assert torch.equal(logits(classgraft.load(folder, network())), logits(steps[0]))


def test_another_network_cannot_take_the_place_of_what_was_pruned(tmp_path: Path) -> None:
    classgraft.save(two_extensions()[-1], tmp_path / "b")
    with pytest.raises(InputError):
        classgraft.load(tmp_path / "b", Tiny())


@pytest.mark.parametrize("format", ["onnx", "torch-export"])
def test_an_export_is_one_plain_graph(format: str, tmp_path: Path) -> None:
    if format == "onnx":
        pytest.importorskip("onnxruntime")
    bundle = two_extensions()[-1]
    parity = classgraft.export(bundle, format, tmp_path / "out")
    assert parity.agreement == 1.0
    assert parity.difference < 1e-4
