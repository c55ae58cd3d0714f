"""The engine: chosen by length and hardware, in the body alone, gone after the run."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
import torch.nn.functional as F
from small import classifier, images
from torch import nn
from torch._dynamo.testing import CompileCounter

from classgraft.errors import InputError
from classgraft.training import engine as engines
from classgraft.training.answers import answers, asked
from classgraft.training.engine import COMPILED, COMPILED_AMX, LOWERED, Engine, choose, current, engine, part_of
from classgraft.training.loop import Batch, Terms, fit
from classgraft.training.recipe import Recipe

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=1, batch_size=10)


def test_long_runs_are_lowered_and_wishes_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "has_bf16", lambda kind: True)
    monkeypatch.setattr(engines, "has_amx", lambda kind: False)
    monkeypatch.setattr(engines, "can_compile", lambda kind: True)
    assert choose(CPU, LOWERED - 1) == Engine()
    assert choose(CPU, LOWERED).precision == "bf16"
    assert not choose(CPU, COMPILED - 1).compile
    assert choose(CPU, COMPILED) == Engine(precision="bf16", compile=True)
    with engine(precision="fp32"):
        assert choose(CPU, COMPILED) == Engine(compile=True)
        with engine(compile=False):
            assert choose(CPU, COMPILED) == Engine()
    assert choose(torch.device("cuda"), COMPILED) == Engine("cuda", "bf16", compile=True)


def test_with_amx_compiling_pays_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "can_compile", lambda kind: True)
    for amx in (True, False):
        monkeypatch.setattr(engines, "has_amx", lambda kind, amx=amx: amx)
        assert choose(CPU, COMPILED_AMX).compile == amx


def test_depthwise_convolutions_stay_in_fp32_on_a_cpu_and_are_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "can_compile", lambda kind: True)
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 1), nn.Flatten())
    module = nn.ModuleDict({"body": body})
    seen: list[torch.dtype] = []
    for part in list(body)[:3]:
        part.register_forward_hook(lambda module, given, output: seen.append(output.dtype))
    images = torch.rand(2, 3, 5, 5)
    plain = body(images)
    seen.clear()
    with Engine(precision="bf16").ready(module):
        lowered = copy.deepcopy(module)["body"](images)  # a copy is lowered alike
        body(images).sum().backward()
        with torch.no_grad():
            body(images)
    assert seen == [*2 * [torch.bfloat16, torch.float32, torch.bfloat16], *3 * [torch.bfloat16]]
    assert lowered.dtype == torch.float32
    assert torch.allclose(lowered, plain, atol=2e-2)
    assert not any("forward" in vars(part) for part in body.modules())
    assert not choose(CPU, COMPILED, [module]).compile
    assert choose(CPU, COMPILED, [body[0]]).compile


def test_the_parts_of_a_whole_are_run_as_the_whole_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "has_bf16", lambda kind: True)
    monkeypatch.setattr(engines, "can_compile", lambda kind: True)
    with part_of(COMPILED):
        assert choose(CPU, 1) == Engine(precision="bf16", compile=True)
    assert choose(CPU, 1) == Engine()


def test_without_hardware_for_it_nothing_is_lowered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "has_bf16", lambda kind: False)
    assert choose(CPU, 1e9).precision == "fp32"


def test_the_choice_is_said_once_in_a_line(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_said", set())
    with caplog.at_level(logging.INFO, "classgraft"), engine(precision="bf16"):
        choose(CPU, 1)
        choose(CPU, 2)
    assert caplog.messages == ["engine: cpu, bf16, channels-last"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one here")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="cuda"), engine(device="cuda"):
        pass


def test_only_the_body_computes_in_bf16_and_only_inside_the_run() -> None:
    model = classifier()
    seen: list[torch.dtype] = []

    def objective(batch: Batch) -> Terms:
        seen.append(model.body[1].num_batches_tracked.dtype)
        features = model.features(batch.images)
        seen.extend([features.dtype, model.head(features).dtype, current_dtype(model.body, batch)])
        assert model.body[0].weight.is_contiguous(memory_format=torch.channels_last)
        return {"class": F.cross_entropy(model.head(features), batch.targets)}

    def current_dtype(body: nn.Module, batch: Batch) -> torch.dtype:
        inside: list[torch.dtype] = []
        handle = body[1].register_forward_hook(lambda module, given, output: inside.append(output.dtype))  # type: ignore[index]
        body(batch.images)
        handle.remove()
        return inside[0]

    with engine(precision="bf16"):
        fit(model, objective, images(10), RECIPE)
    assert seen[1:] == [torch.float32, torch.float32, torch.bfloat16]
    assert "forward" not in vars(model.body)
    assert model.body[0].weight.is_contiguous()
    assert current().precision == "fp32"


def test_a_copy_made_inside_a_run_is_its_own_and_plain_outside() -> None:
    model, copies = classifier(), []

    def objective(batch: Batch) -> Terms:
        copies.append(copy.deepcopy(model))
        return {"class": F.cross_entropy(model(batch.images), batch.targets)}

    with engine(precision="bf16"):
        fit(model, objective, images(20), RECIPE)
    inputs = images(4).view(torch.arange(4), CPU)
    early = copies[0].eval()
    fresh = classifier().eval()
    fresh.load_state_dict(early.state_dict())
    assert torch.allclose(early(inputs), fresh(inputs), atol=1e-6)
    assert not torch.allclose(early(inputs), model(inputs), atol=1e-4)


def test_answers_are_in_full_precision_even_inside_a_run() -> None:
    model, teacher = classifier(), classifier(seed=1)
    plain = answers(teacher, images(10))
    found: list[torch.Tensor] = []

    def objective(batch: Batch) -> Terms:
        found.append(answers(teacher, images(10), augment=lambda pixels, size, draws: pixels))
        soft = asked(teacher, batch.images)
        assert not soft.requires_grad
        assert teacher.training
        return {"old": F.cross_entropy(model(batch.images), soft.softmax(1))}

    with engine(precision="bf16"):
        fit(model, objective, images(10), RECIPE)
    assert torch.equal(found[0], plain)


def test_fifty_head_growths_compile_one_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    counter = CompileCounter()
    monkeypatch.setattr(engines, "BACKEND", counter)
    model = classifier()
    for growth in range(50):
        model = model.grown([f"new {growth}"]).requires_grad_(True)

        def objective(batch: Batch, model: nn.Module = model) -> Terms:
            return {"class": F.cross_entropy(model(batch.images), batch.targets)}

        with engine(compile=True, precision="bf16"):
            fit(model, objective, images(20), RECIPE)
    assert counter.frame_count == 1
    with engine(compile=True, precision="bf16"):
        fit(model, objective, images(18), RECIPE)  # batches of another size have a graph of their own
    assert counter.frame_count == 2


def test_compiled_and_eager_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "BACKEND", "aot_eager")
    models = [classifier(), classifier()]
    for model, compiled in zip(models, (True, False), strict=True):

        def objective(batch: Batch, model: nn.Module = model) -> Terms:
            return {"class": F.cross_entropy(model(batch.images), batch.targets)}

        with engine(compile=compiled):
            fit(model, objective, images(20), RECIPE)
    for one, two in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.allclose(one, two, atol=1e-5)


def test_hooks_that_came_after_a_body_was_compiled_act(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "BACKEND", "aot_eager")
    module = nn.ModuleDict({"body": nn.Sequential(nn.Linear(3, 3), nn.ReLU())})
    seen = torch.rand(2, 3)
    with Engine(compile=True).ready(module):
        plain = module["body"](seen)
        hook = module["body"][0].register_forward_hook(lambda part, given, output: output + 1)
        moved = module["body"](seen)
        hook.remove()
        again = module["body"](seen)
    assert not torch.equal(moved, plain)
    assert torch.equal(again, plain)
