"""Detectors: their losses, what they learn from one another, and new classes on frozen features."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from coloured import BRIEF, COLOURS, HIDDEN, NEW, OLD, QUICK, SIDE, WIDE, detector, pictures, squares, trained
from torch import Tensor, nn
from torch.autograd import gradcheck
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.ops import box_iou

import classgraft
from classgraft import catalogue, detectors
from classgraft.data.boxes import Boxed
from classgraft.distillers import detection
from classgraft.distillers.detection import Detection
from classgraft.errors import InputError
from classgraft.extenders import detector_rows
from classgraft.extenders.detector_rows import DetectorRows
from classgraft.losses.detection import bounded_regression, smooth_regression, weighted_soft_cross_entropy
from classgraft.models.classifier import frozen
from classgraft.models.detector import Detector
from classgraft.models.detector_parts import small
from classgraft.models.preparation import Preparation
from classgraft.training import detecting, proposing, sampling
from classgraft.training.detecting import RECIPE, found, labelled, terms, train
from classgraft.training.proposing import ridge, shifted, views

CPU = torch.device("cpu")


def bits(model: nn.Module) -> list[tuple[str, bytes]]:
    return [(name, tensor.detach().numpy().tobytes()) for name, tensor in model.state_dict().items()]


def given(images: Boxed, count: int = 3) -> tuple[Tensor, list[dict[str, Tensor]]]:
    return images.view(torch.arange(count), CPU)


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cropped(images: Boxed) -> Boxed:
    """The same views, cut out of larger pictures."""
    pixels = nn.functional.pad(images.images.pixels, [8] * 4, value=105)
    given = Preparation(SIDE, SIDE + 16, (0.0,) * 3, (1.0,) * 3)
    return replace(images, images=replace(images.images, pixels=pixels, preparation=given), boxes=images.boxes + 8)


def outside() -> Boxed:
    """Pictures whose boxes a view does not show."""
    images = cropped(squares(3, NEW))
    return replace(images, boxes=torch.tensor([[0.0, 0.0, 7.0, 7.0]]).repeat(len(images.boxes), 1))


# -- losses ---------------------------------------------------------------------------------------------------------


def test_weighted_soft_cross_entropy_by_hand() -> None:
    """Teacher (3/4, 1/4), student (1/2, 1/2), background 1.5: (1.5 * 3/4 + 1/4) log 2."""
    teacher = torch.tensor([[3.0, 1.0]], dtype=torch.float64).log()
    loss = weighted_soft_cross_entropy(torch.zeros(1, 2, dtype=torch.float64), teacher, torch.tensor([1.5, 1.0]))
    assert float(loss) == pytest.approx(1.375 * 0.6931471805599453)


def test_weighted_soft_cross_entropy_is_that_of_a_slow_reference() -> None:
    student, teacher, weight = draws(5, 3), draws(5, 3, seed=1), torch.tensor([1.5, 1.0, 0.5], dtype=torch.float64)
    total = 0.0
    for i in range(5):
        p, q = teacher[i].exp() / teacher[i].exp().sum(), student[i].exp() / student[i].exp().sum()
        total -= sum(float(weight[c] * p[c] * q[c].log()) for c in range(3))
    assert float(weighted_soft_cross_entropy(student, teacher, weight)) == pytest.approx(total / 5)


def test_with_equal_weights_a_student_that_is_its_teacher_stays_and_of_nothing_the_loss_is_0() -> None:
    student = draws(4, 3).requires_grad_()
    for weight, still in ((torch.ones(3), True), (torch.tensor([1.5, 1.0, 1.0]), False)):
        loss = weighted_soft_cross_entropy(student, student.detach(), weight)
        (gradient,) = torch.autograd.grad(loss, student)
        assert (float(gradient.abs().max()) < 1e-12) is still
    assert float(weighted_soft_cross_entropy(torch.zeros(0, 3), torch.zeros(0, 3), torch.ones(3))) == 0


def test_losses_have_the_gradient_that_they_claim() -> None:
    student = draws(4, 3).requires_grad_()
    weight = torch.tensor([1.5, 1.0, 1.0], dtype=torch.float64)
    assert gradcheck(lambda s: weighted_soft_cross_entropy(s, draws(4, 3, seed=1), weight), (student,))
    offsets = draws(4, 4).requires_grad_()
    assert gradcheck(lambda s: bounded_regression(s, draws(4, 4, seed=1), draws(4, 4, seed=2), 0.1), (offsets,))
    assert gradcheck(lambda s: smooth_regression(s, draws(4, 4, seed=2)), (offsets,))


@pytest.mark.parametrize(
    ("student", "teacher", "margin", "loss"),
    [
        (2.0, 1.0, 0.0, 4.0),  # worse than the teacher: pulled to the truth
        (1.0, 2.0, 0.0, 0.0),  # better: left in peace
        (1.0, 1.2, 0.5, 1.0),  # better, but by 0.44 and not by 0.5
        (1.0, 1.2, 0.4, 0.0),  # better by more than the margin
        (0.0, 0.0, 0.0, 0.0),  # both right
        (0.0, 3.0, 0.0, 0.0),
    ],
)
def test_the_teacher_opens_and_closes_the_gate(student: float, teacher: float, margin: float, loss: float) -> None:
    """Of offsets at distances |s - y| and |t - y| along one of the four, y = (1, 0, 0, 0)."""
    truth = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    own = truth + torch.tensor([[student, 0.0, 0.0, 0.0]])
    own.requires_grad_()
    master = (truth + torch.tensor([[0.0, teacher, 0.0, 0.0]])).requires_grad_()
    found_loss = bounded_regression(own, master, truth, margin)
    assert float(found_loss.detach()) == pytest.approx(loss)
    gradients = torch.autograd.grad(found_loss, (own, master), allow_unused=True)
    torch.testing.assert_close(gradients[0], 2 * (own - truth).detach() * (loss > 0))
    assert gradients[1] is None  # the teacher is no target


def test_bounded_regression_is_that_of_a_slow_reference_and_gates_box_by_box() -> None:
    student, teacher, truth = draws(9, 4), draws(9, 4, seed=1), draws(9, 4, seed=2)
    total, open_ = 0.0, 0
    for s, t, y in zip(student.tolist(), teacher.tolist(), truth.tolist(), strict=True):
        own, other = (sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) for x in (s, t))
        open_ += own + 0.2 > other
        total += own if own + 0.2 > other else 0.0
    assert 0 < open_ < 9
    assert float(bounded_regression(student, teacher, truth, 0.2)) == pytest.approx(total)
    assert float(bounded_regression(student[:0], teacher[:0], truth[:0], 0.2)) == 0


def test_smooth_regression_by_hand() -> None:
    """Beta 1/9: 0.05 counts 4.5 * 0.05^2, and 1 counts 1 - 1/18."""
    loss = smooth_regression(torch.tensor([[0.05, 1.0, 0.0, 0.0]]), torch.zeros(1, 4))
    assert float(loss) == pytest.approx(4.5 * 0.05**2 + 1 - 1 / 18)


# -- the two stages -------------------------------------------------------------------------------------------------


def test_what_is_learnt_is_what_torchvision_would_learn() -> None:
    model, (views, truth) = detector(), given(squares(4))
    model.train()
    torch.manual_seed(3)
    own = terms(sampling.seen(model, views, truth))
    torch.manual_seed(3)
    theirs = model.network(list(views), [{k: t[k] for k in ("boxes", "labels")} for t in truth])
    names = {"rpn-class": "loss_objectness", "rpn-boxes": "loss_rpn_box_reg"}
    names |= {"rcn-class": "loss_classifier", "rcn-boxes": "loss_box_reg"}
    assert own.keys() == names.keys()
    for mine, other in names.items():
        torch.testing.assert_close(own[mine], theirs[other], msg=mine)


def test_a_teacher_is_asked_about_the_boxes_that_the_student_sampled() -> None:
    """Of itself it says the same again; of another width it says as much of as many."""
    student, (views, truth) = detector().train(), given(squares(4))
    seen = sampling.seen(student, views, truth)
    again = sampling.seen_again(copy.deepcopy(student), views, seen.sample)
    torch.testing.assert_close(again.rcn.logits, seen.rcn.logits)
    torch.testing.assert_close(again.rpn.offsets, seen.rpn.offsets)
    wide = sampling.seen_again(frozen(detector(5)), views, seen.sample)
    assert wide.rcn.logits.shape == seen.rcn.logits.shape
    assert wide.rcn.offsets.shape == seen.rcn.offsets.shape
    assert not torch.allclose(wide.rcn.logits, seen.rcn.logits)
    assert 0 < int((seen.rcn.labels > 0).sum()) < len(seen.rcn.labels)


def test_void_boxes_are_neither_objects_nor_background() -> None:
    images = squares(3)
    void = replace(images, labels=torch.full_like(images.labels, -1))
    model = detector().train()
    for part, least in ((images, 1), (void, 0)):
        views, truth = given(part)
        seen = sampling.seen(model, views, truth)
        assert all(bool(loss.isfinite()) for loss in terms(seen).values())
        assert int((seen.rpn.labels > 0).sum()) >= least
        assert least or not int((seen.rcn.labels > 0).sum())
        for i, own in enumerate(truth):  # no background region lies in a void box
            start = sum(len(r) for r in seen.sample.regions[:i])
            regions = seen.sample.regions[i]
            background = regions[seen.sample.region_labels[start : start + len(regions)] == 0]
            for box in own["void"]:
                low, high = torch.maximum(background[:, :2], box[:2]), torch.minimum(background[:, 2:], box[2:])
                share = (high - low).clamp(min=0).prod(1) / (background[:, 2:] - background[:, :2]).prod(1)
                assert not bool((share >= 0.5).any())


def test_a_picture_without_boxes_is_all_background() -> None:
    views, truth = given(squares(2), 2)
    empty = [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "void": torch.zeros(0, 4)}] * 2
    found_terms = terms(sampling.seen(detector().train(), views, empty))
    assert all(bool(loss.isfinite()) for loss in found_terms.values())
    assert found_terms["rcn-boxes"].item() == found_terms["rpn-boxes"].item() == 0
    assert len(truth) == 2


def test_a_trained_detector_finds_what_it_was_trained_on() -> None:
    pytest.importorskip("pycocotools")
    test = squares(16, seed=7)
    assert detectors.evaluate(trained(), test)["all"] > 0.6 > 0.2 > detectors.evaluate(detector(WIDE), test)["all"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Detector(nn.Linear(2, 2), OLD), "Linear is no plain Faster R-CNN"),
        (lambda: Detector(small(2, 2, SIDE), ("one",)), "3 rows but 1 class names"),
        (lambda: train(detector(), squares(3, NEW), BRIEF), "none is of the detector's classes"),
        (lambda: detectors.undo(detector()), "Nothing was added"),
        (lambda: detectors.extend(detector(), squares(3)), "name no new class"),
        (lambda: detectors.extend(detector(), squares(3), tune=-1), "tune is -1"),
        (lambda: detectors.extend(detector(), outside()), "No new box lies in the part"),
        (
            lambda: detectors.extend(detector(), replace(squares(3), classes=("red", "yellow")).of(("gold", "yellow"))),
            "The class 'gold' has no box",
        ),
    ],
)
def test_bad_input_to_detectors_is_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        make()


def test_a_detector_that_ends_in_something_else_is_refused() -> None:
    network = small(2, 2, SIDE)
    network.roi_heads.box_predictor = nn.Identity()
    with pytest.raises(InputError, match="ends in Identity"):
        Detector(network, OLD)


# -- distillation ---------------------------------------------------------------------------------------------------

METHOD = Detection(recipe=BRIEF)
KNOBS: dict[str, Any] = {
    "soft": 0.7, "background": 3.0, "bounded": 2.0, "margin": 50.0, "hint": 3.0,
    "recipe": replace(BRIEF, epochs=3),
}  # fmt: skip


def distilled(method: Detection = METHOD, state: int = 0) -> Detector:
    torch.manual_seed(state)
    return method.distill(detector(4), detector(2, seed=1), squares(5))


def test_detection_is_in_the_catalogue_and_not_on_the_command_line() -> None:
    assert catalogue.distiller("detection") == Detection()
    assert catalogue.distiller("detection", {"hint": 0.0, "epochs": 3}).recipe.epochs == 3
    with pytest.raises(InputError, match="1 at most"):
        catalogue.distiller("detection", {"soft": 2.0})
    from classgraft.shrinking import distill

    with pytest.raises(InputError, match="'detection' learns from boxes"):
        distill(None, "nowhere", "timm:resnet18", method="detection")  # type: ignore[arg-type]


def test_every_term_of_the_distillation_moves_a_weight_of_the_student(monkeypatch: pytest.MonkeyPatch) -> None:
    strengths: dict[str, float] = {}

    def spying(module: nn.Module, objective: Callable[[Any], dict[str, Tensor]], *rest: Any, **options: Any) -> Any:
        student = list(module[0].parameters())  # type: ignore[index]

        def noting(batch: Any) -> dict[str, Tensor]:
            losses = objective(batch)
            for name, loss in losses.items():
                gradients = torch.autograd.grad(loss, student, retain_graph=True, allow_unused=True)
                most = max(float(g.abs().max()) for g in gradients if g is not None)
                strengths[name] = max(strengths.get(name, 0.0), most)
            return losses

        return fit(module, noting, *rest, **options)

    fit = detection.fit
    monkeypatch.setattr(detection, "fit", spying)
    distilled(replace(METHOD, margin=100.0))
    stages = {f"{stage}-{term}" for stage in ("rpn", "rcn") for term in ("class", "soft", "boxes", "bounded")}
    assert strengths.keys() == stages | {"hint"}
    assert all(strength > 0 for strength in strengths.values()), strengths


@pytest.mark.parametrize("field", KNOBS)
def test_no_knob_of_the_distillation_is_dead(field: str) -> None:
    assert set(KNOBS) == {f.name for f in dataclasses.fields(Detection)}
    assert bits(distilled(replace(METHOD, **{field: KNOBS[field]}))) != bits(distilled())


def test_distilling_changes_nothing_that_was_given_and_the_same_seed_gives_the_same_bits() -> None:
    teacher, student, images = detector(4).train(), detector(2, seed=1), squares(5)
    before = (bits(teacher), bits(student), teacher.training, student.training, images.boxes.clone())
    state = torch.get_rng_state()
    first = METHOD.distill(teacher, student, images)
    assert torch.equal(torch.get_rng_state(), state)
    assert (bits(teacher), bits(student), teacher.training, student.training) == before[:4]
    assert torch.equal(images.boxes, before[4])
    assert bits(first) == bits(distilled(state=7))
    assert not any(part.training for part in first.modules())
    assert all(bool(p.isfinite().all()) for p in first.parameters())
    moved = [bits_of != other for bits_of, other in zip(bits(first), bits(student), strict=True)]
    assert sum(moved) > 0.9 * len(moved)


def test_with_all_weights_at_0_it_is_training_on_the_labels() -> None:
    alone = replace(METHOD, soft=0.0, bounded=0.0, hint=0.0).distill(detector(4), detector(2, seed=1), squares(5))
    assert bits(alone) == bits(train(detector(2, seed=1), squares(5), BRIEF))


def test_a_student_that_never_hears_a_label_learns_its_teachers_and_not_those_of_an_untrained_one() -> None:
    """Soft answers alone (mu = 0); the control hears a teacher that knows nothing."""
    pytest.importorskip("pycocotools")
    method = Detection(soft=1.0, recipe=QUICK)
    scores = [
        detectors.evaluate(method.distill(teacher, detector(WIDE, seed=2), squares(120)), squares(16, seed=7))["all"]
        for teacher in (trained(), detector(WIDE, seed=4))
    ]
    assert scores[0] > 0.4
    assert scores[1] < scores[0] - 0.3


@pytest.mark.parametrize(
    ("student", "words"),
    [
        (lambda: detector(2, classes=OLD[::-1]), "2 classes are not the teacher's 2"),
        (lambda: Detector(small(2, 2, SIDE, (6, 12)), OLD), "same anchors"),
        (lambda: Detector(small(2, 2, 2 * SIDE, (8, 12)), OLD), "the same strides|same anchors"),
    ],
)
def test_a_student_that_cannot_be_compared_is_refused(student: Callable[[], Detector], words: str) -> None:
    with pytest.raises(InputError, match=words):
        METHOD.distill(detector(), student(), squares(3))


# -- new classes ----------------------------------------------------------------------------------------------------

FEW = DetectorRows(samples=20, iterations=30, weight_decay=0.01)
FIELDS: dict[str, Any] = {
    "jitter": 2, "negative": 30.0, "base": 20.0, "confidence": 0.95, "samples": 5, "weight_decay": 1.0, "prior": 200.0,
    "iterations": 2, "regions": 0, "maps": 0.0, "seed": 3,
}  # fmt: skip


def few(count: int = 3, seed: int = 11) -> Boxed:
    """Pictures that show yellow squares, and others, of which the yellow ones alone have boxes."""
    return squares(24, COLOURS, seed).showing(NEW).some(count, 0).of(NEW)


@pytest.fixture(scope="module")
def grown() -> Detector:
    return classgraft.extend(trained(), few(), method=FEW)


def test_old_logits_boxes_and_proposals_keep_their_bits(grown: Detector) -> None:
    old, views = trained(), pictures(8)
    assert grown.classes == COLOURS
    assert grown.rows == (3, 1)
    with torch.no_grad():
        images, _ = old.prepared(views)
        maps = old.maps(images)
        regions = old.proposals(images, old.anchored(images, maps))
        images_now, _ = grown.prepared(views)
        maps_now = grown.maps(images_now)
        for before, now in zip(regions, grown.proposals(images_now, grown.anchored(images_now, maps_now)), strict=True):
            assert torch.equal(before, now)
        features = old.features(maps, regions, images.image_sizes)
        seen_now = grown.features(maps_now, regions, images.image_sizes)
        assert torch.equal(features, seen_now[:, :HIDDEN])
        rows, offsets = old.predictor(features)
        rows_now, offsets_now = grown.predictor(seen_now)
    assert torch.equal(rows_now[:, :3], rows)
    assert torch.equal(offsets_now[:, :12], offsets)
    assert rows_now.shape[1] == 4
    assert offsets_now.shape[1] == 16
    # old and new compete: what the new class takes of a region is taken from all others alike
    taken = rows_now.softmax(1)
    torch.testing.assert_close(taken[:, :3], rows.softmax(1) * (1 - taken[:, 3:]), atol=1e-6, rtol=1e-5)
    assert float(taken[:, 3].max()) > 0.3 > 0.1 > float(taken[:, 3].median())


def test_without_competition_a_grown_detector_finds_what_it_found_bit_for_bit(grown: Detector) -> None:
    """What is proposed for new classes alone adds no box of an old one."""
    silent = copy.deepcopy(grown)
    with torch.no_grad():
        silent.predictor.scores[0].bias.fill_(-1e9)
        for one, two in zip(trained()(pictures(8)), silent(pictures(8)), strict=True):
            assert {key: one[key].tolist() for key in one} == {key: two[key].tolist() for key in two}
    assert len(grown.proposers) == 1
    assert any(len(one["boxes"]) for one in trained()(pictures(8)))


def test_finds_in_a_crop_lie_where_the_picture_shows_them() -> None:
    images = squares(4).of(NEW)
    plain, found_ = (labelled(trained(), each) for each in (images, cropped(images)))
    assert len(plain.boxes) > 2
    torch.testing.assert_close(found_.boxes, plain.boxes + 8)
    assert torch.equal(found_.labels, plain.labels)


def test_a_find_that_rounding_puts_beyond_the_border_is_cut_at_it(monkeypatch: pytest.MonkeyPatch) -> None:
    beyond = {"boxes": torch.tensor([[-1e-5, 4.0, 10.0, 32.00003]]), "labels": torch.tensor([2])}
    monkeypatch.setattr(detecting, "found", lambda *given: [{**beyond, "scores": torch.tensor([0.9])}])
    known = labelled(detector(), squares(1, NEW))
    assert known.boxes[-1].tolist() == [0, 4, 10, 32]
    assert known.classes[known.labels[-1]] == "green"


def blind() -> Detector:
    """Whose first stage proposes nothing."""
    detector = copy.deepcopy(trained())
    with torch.no_grad():
        detector.network.rpn.head.cls_logits.bias.fill_(-1e3)
    detector.network.rpn.score_thresh = 1e-9
    return detector


def test_what_the_first_stage_takes_for_background_is_found_by_proposals_of_its_own() -> None:
    """Without those (the control), and from boxes in wrong places, it is not."""
    pytest.importorskip("pycocotools")
    test, heard = squares(30, COLOURS, seed=9), list[str]()
    assert detectors.coverage(blind(), test) == 0
    seeing = detectors.extend(blind(), few(8), method=FEW, warn=heard.append)
    found_scores = detectors.evaluate(seeing, test)
    assert detectors.coverage(seeing, test.of(NEW)) > 0.9
    assert found_scores["new"] > 0.2
    assert not heard
    without = detectors.extend(blind(), few(8), method=replace(FEW, regions=0), warn=heard.append)
    assert detectors.evaluate(without, test)["new"] == 0
    assert len(heard) == 1
    elsewhere = detectors.extend(blind(), shuffled(few(8)), method=FEW)
    assert detectors.evaluate(elsewhere, test)["new"] < found_scores["new"] - 0.15


def test_a_view_and_its_boxes_move_together() -> None:
    one = squares(1, NEW, seed=2)
    for picture, truth in views(one, 0, CPU):
        for moved, own in shifted(picture, truth):
            bright = (moved[0, :2] > 0.8).all(0) & (moved[0, 2] < 0.2)
            inside = torch.zeros(SIDE, SIDE, dtype=torch.bool)
            for left, top, right, bottom in own["boxes"].int().tolist():
                inside[top:bottom, left:right] = True
            assert torch.equal(bright, inside)


@pytest.mark.parametrize("count", [3, 40])
def test_ridge_is_where_its_gradient_is_nothing(count: int) -> None:
    """With fewer samples than features, and with more."""
    features, wanted, prior = draws(count, 6).float(), draws(count, 4, seed=1).float(), 2.0
    weight, bias = ridge(features, wanted, prior)
    x = torch.cat([features, torch.ones(count, 1)], 1).double()
    both = torch.cat([weight, bias[:, None]], 1).double().requires_grad_()
    loss = (x @ both.T - wanted).square().sum() + prior * x.square().mean() * both.square().sum()
    assert float(torch.autograd.grad(loss, both)[0].abs().max()) < 1e-4
    assert all(not part.any() for part in ridge(features[:0], wanted[:0], prior))


def test_rows_that_were_saved_without_maps_and_proposals_are_read(tmp_path: Path) -> None:
    old = trained().grown(NEW, nn.Linear(HIDDEN, 1), nn.Linear(HIDDEN, 4))
    detectors.save(old, tmp_path / "old")
    again = detectors.load(tmp_path / "old", small(2, WIDE, SIDE, (8, 12), hidden=HIDDEN))
    assert bits(again) == bits(old)
    twice = detectors.extend(again, replace(few(), classes=("gold",)), method=FEW)
    assert bits(detectors.undo(twice)) == bits(old)
    assert bits(detectors.undo(detectors.undo(twice))) == bits(trained())


def shuffled(images: Boxed) -> Boxed:
    """The same boxes, each in a wrong place of its picture."""
    centres = (images.boxes[:, :2] + images.boxes[:, 2:]) / 2
    away = torch.where(centres < SIDE / 2, torch.tensor(SIDE - 13.0), torch.tensor(0.0))
    return replace(images, boxes=torch.cat([away, away + 13], 1))


def test_new_things_are_found_from_few_images_and_old_ones_still() -> None:
    """The control learns from boxes in wrong places. From 16 images, for from 3 it hangs on the CPU who wins by how much."""
    pytest.importorskip("pycocotools")
    test = squares(60, COLOURS, seed=9)
    before = detectors.evaluate(trained(), test.of(OLD))["all"]
    found_scores = detectors.evaluate(detectors.extend(trained(), few(16), method=FEW), test)
    control = detectors.evaluate(detectors.extend(trained(), shuffled(few(16)), method=FEW), test)
    assert found_scores["new"] > 0.2
    assert found_scores["old"] > before - 0.2
    assert control["new"] < found_scores["new"] - 0.15


def test_extending_changes_nothing_that_was_given_and_undoing_gives_the_bits_of_before(grown: Detector) -> None:
    before, images, state = bits(trained()), few(), torch.get_rng_state()
    again = detectors.extend(trained(), images, method=FEW)
    assert bits(trained()) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert bits(again) == bits(grown)
    assert not again.training
    assert isinstance(detectors.undo(again).predictor, FastRCNNPredictor)
    assert bits(detectors.undo(again)) == before
    assert detectors.undo(again).classes == OLD


def test_a_second_extension_keeps_the_first(grown: Detector) -> None:
    more = squares(6, COLOURS, 13)
    more = replace(more, classes=("red", "yellow", "gold"))  # what was green or yellow has other names here
    twice = detectors.extend(grown, more, method=FEW)
    assert twice.classes == (*COLOURS, "gold")
    assert twice.rows == (3, 1, 1)
    assert bits(detectors.undo(twice)) == bits(grown)
    width = grown.predictor.scores[0].in_features
    first, second = (model.predictor(draws(5, width).float())[0] for model in (grown, twice))
    assert torch.equal(first, second[:, :4])


def test_one_box_is_enough(grown: Detector) -> None:
    one = few(1)
    one = replace(one, boxes=one.boxes[:1], labels=one.labels[:1], owner=one.owner[:1])
    found_one = detectors.extend(trained(), one, method=FEW)
    assert all(bool(p.isfinite().all()) for p in found_one.parameters())


@pytest.mark.parametrize("field", FIELDS)
def test_no_knob_of_the_extension_is_dead(field: str, grown: Detector) -> None:
    assert set(FIELDS) == {f.name for f in dataclasses.fields(DetectorRows)}
    assert bits(detectors.extend(trained(), few(), method=replace(FEW, **{field: FIELDS[field]}))) != bits(grown)


def test_every_term_of_the_extension_moves_the_new_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, float] = {}

    def spying(make: Callable[..., dict[str, Tensor]], classes: int, width: int, steps: int) -> Any:
        weight, bias = (draws(classes, width) / 100).float().requires_grad_(), torch.zeros(classes, requires_grad=True)
        for name, loss in make(weight, bias).items():
            moved = float(torch.autograd.grad(loss, weight, retain_graph=True)[0].abs().max())
            seen[name] = min(seen.get(name, moved), moved)  # "decay" is of the rows and of what proposes
        return solve(make, classes, width, steps)

    solve = detector_rows.solve
    monkeypatch.setattr(detector_rows, "solve", spying)
    monkeypatch.setattr(proposing, "solve", spying)
    # with old things that nobody named
    detectors.extend(trained(), squares(24, COLOURS, 11).showing(NEW).some(8, 0).of(NEW), method=FEW)
    assert seen.keys() == {"objects", "elsewhere", "new", "background", "old", "base", "decay"}
    assert min(seen.values()) > 0


def test_old_things_in_the_new_images_need_no_boxes(grown: Detector) -> None:
    """Whether they are named or not, nothing else is learnt."""
    named = squares(24, COLOURS, 11).showing(NEW).some(3, 0)
    assert set(named.labels.tolist()) > {2}
    assert bits(detectors.extend(trained(), named, method=FEW)) == bits(grown)


def test_a_detector_that_proposes_nothing_there_says_so() -> None:
    heard: list[str] = []
    sealed = copy.deepcopy(trained())
    sealed.network.rpn.score_thresh = 2.0
    detectors.extend(sealed, few(), method=FEW, warn=heard.append)
    assert len(heard) == 1
    assert "proposes 0% of the new boxes" in heard[0]
    detectors.extend(trained(), few(), method=FEW, warn=heard.append)
    assert len(heard) == 1


def test_what_a_detector_finds_stands_beside_the_boxes_that_are_drawn() -> None:
    """Sure finds are boxes, unsure ones void; none on a thing that has a box; without either nothing is added."""
    shown = squares(24, COLOURS, 11)
    drawn, finds = shown.of(NEW), found(trained(), shown)
    both = detectors.labelled(trained(), drawn, sure=0.5, unsure=0.2)
    assert both.classes == COLOURS
    assert both.boxes[: len(drawn.boxes)].tolist() == drawn.boxes.tolist()
    assert set(both.labels[: len(drawn.boxes)].tolist()) == {2}
    more = list(zip(both.owner.tolist(), both.boxes.tolist(), both.labels.tolist(), strict=True))[len(drawn.boxes) :]
    wanted = []
    for place, own in enumerate(finds):
        for box, label, score in zip(own["boxes"], own["labels"], own["scores"], strict=True):
            if score >= 0.2 and all(
                float(box_iou(box[None], one[None])) < 0.5 for one in drawn.boxes[drawn.owner == place]
            ):
                wanted.append((place, box.tolist(), int(label) - 1 if score >= 0.5 else -1))
    assert more == wanted
    assert {label for _, _, label in more} >= {-1, 1}
    assert detectors.labelled(trained(), drawn, sure=2.0, unsure=2.0).boxes.tolist() == drawn.boxes.tolist()


def test_tuned_further_the_old_detector_speaks_for_the_old_things() -> None:
    """The control has the same steps on the new boxes alone, and learns that old things are background."""
    pytest.importorskip("pycocotools")
    before, test, images = bits(trained()), squares(60, COLOURS, seed=9), few(8)
    tuned = detectors.extend(trained(), images, method=FEW, tune=60)
    assert bits(trained()) == before
    rows, recipe = detectors.extend(trained(), images, method=FEW), replace(RECIPE, epochs=60, seed=FEW.seed)
    both = detectors.labelled(trained(), images)
    assert bits(detectors.train(rows, both, recipe, statistics=False)) == bits(tuned)
    alone = detectors.train(rows, images, recipe, statistics=False)
    of_tuned, of_alone = (detectors.evaluate(each, test) for each in (tuned, alone))
    assert of_tuned["old"] > of_alone["old"] + 0.2
    assert of_tuned["new"] > 0.1


def test_a_saved_detector_is_the_same_again(grown: Detector, tmp_path: Path) -> None:
    network = small(2, WIDE, SIDE, (8, 12), hidden=HIDDEN, seed=5)
    before = bits(network)
    for model in (trained(), grown):
        detectors.save(model, tmp_path / "kept")
        again = detectors.load(tmp_path / "kept", network)
        assert again.classes == model.classes
        assert bits(again) == bits(model)
        assert bits(network) == before
        for one, two in zip(found(model, squares(2)), found(again, squares(2)), strict=True):
            assert all(torch.equal(one[key], two[key]) for key in one)
    assert bits(detectors.undo(detectors.load(tmp_path / "kept", network))) == bits(trained())


@pytest.mark.parametrize("damage", ["weights", "kind", "rows", "gone", "network"])
def test_a_damaged_folder_is_refused(damage: str, grown: Detector, tmp_path: Path) -> None:
    folder, network = tmp_path / "kept", small(2, WIDE, SIDE, (8, 12), hidden=HIDDEN)
    detectors.save(grown, folder)
    config = json.loads((folder / "config.json").read_text())
    if damage == "weights":
        content = bytearray((folder / "model.safetensors").read_bytes())
        content[-1] ^= 1
        (folder / "model.safetensors").write_bytes(content)
    elif damage == "gone":
        (folder / "config.json").unlink()
    elif damage == "network":
        network = small(2, 3, SIDE, (8, 12), hidden=HIDDEN)
    else:
        config[damage] = {"kind": "classifier", "rows": [3, 7]}[damage]
        (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="not of the form" if damage == "network" else "cannot be read as a detector"):
        detectors.load(folder, network)
