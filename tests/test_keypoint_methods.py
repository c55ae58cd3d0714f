"""Part experts, video pose distillation and data distillation of keypoints, each beside its control."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from pointed import NAMES, PAIRS, faces, finder, seer
from small import classifier
from small import images as plain_images
from torch import Tensor

from classgraft import teaching
from classgraft.data.augment import augmentation
from classgraft.data.images import Images
from classgraft.data.keypoints import Poses
from classgraft.distillers.part_experts import PartExperts
from classgraft.distillers.video_pose import VideoPose
from classgraft.errors import InputError
from classgraft.losses.keypoints import squared_distance
from classgraft.models.keypoints import Locator, decoded, united
from classgraft.selftrainers.data_distillation_keypoints import KeypointDataDistillation
from classgraft.training import loop
from classgraft.training.batches import Epochs
from classgraft.training.locating import ensembled, measured, taught
from classgraft.training.recipe import Recipe

CPU = torch.device("cpu")
EYES, REST = NAMES[:2], NAMES[2:]
QUICK = Recipe(epochs=15, batch_size=10, optimiser="adamw", lr=0.01, weight_decay=0.0, milestones=(), augment="flip")


@cache
def teacher() -> Locator:
    return taught(finder(width=12), faces(60), QUICK)


@cache
def experts() -> Locator:
    """Of the eyes and of the rest, each from images that are annotated with its part alone."""
    parts = [(EYES, 1), (REST, 2)]
    return united([taught(finder(names, width=12, seed=seed), faces(60, seed=seed), QUICK) for names, seed in parts])


def with_eyes(count: int = 40) -> Poses:
    """Images in which nobody annotated anything but the eyes."""
    given = faces(count, seed=5)
    known = given.annotated.clone()
    known[:, 2:] = False
    return replace(given, annotated=known)


def without_points(given: Poses) -> Images:
    return Images(given.pixels, given.labels, (), given.preparation)


# -- part experts ---------------------------------------------------------------------------------------------------


def test_what_nobody_annotated_is_learnt_from_experts_and_not_from_untrained_ones() -> None:
    test, student = faces(30, seed=9), finder(seed=3)
    method = PartExperts(confidence=0.0, recipe=QUICK)
    untrained = united([finder(EYES, seed=7), finder(REST, seed=8)])
    nothing = replace(method, experts=0.0, maps=0.0)
    helped, alone, control = (
        measured(way.distill(of, student, with_eyes()), test)
        for way, of in ((method, experts()), (nothing, experts()), (method, untrained))
    )
    assert helped.of(REST) < 0.15
    assert alone.of(REST) > 0.4
    assert control.of(REST) > helped.of(REST) + 0.1
    assert helped.of(EYES) < 0.2


@pytest.mark.parametrize("term", ["experts", "maps"])
def test_each_term_of_the_experts_teaches_alone_and_without_any_annotation(term: str) -> None:
    test, free = faces(30, seed=9), without_points(faces(40, seed=5))
    method = PartExperts(**{"experts": 0.0, "maps": 0.0, "confidence": 0.0} | {term: 1.0}, recipe=QUICK)
    assert measured(finder(seed=3), test).mean > 0.5
    assert measured(method.distill(experts(), finder(seed=3), free), test).mean < 0.2


def test_what_a_person_annotated_is_never_overwritten() -> None:
    """Experts say nothing of it, however sure; and the gradient of what they say is 0 in its maps."""
    given = with_eyes()
    before = given.points.clone()
    method = PartExperts(confidence=0.0, recipe=QUICK)
    told = method.told(experts(), given)
    assert torch.equal(told.annotated, ~given.annotated)
    assert not torch.equal(told.points, given.points)
    assert torch.equal(method.told(experts(), without_points(given)).annotated, torch.ones(40, 4, dtype=torch.bool))
    seen: list[Tensor] = []

    def spying(trainee: Locator, objective: object, *rest: object, **more: object) -> None:
        loop.train_mode(trainee)
        batch = next(iter(Epochs(given, method.recipe, CPU)(0)))
        for name, loss in objective(batch).items():  # type: ignore[operator]
            row = torch.autograd.grad(loss, trainee.network[-1].weight, retain_graph=True)[0].flatten(1)
            assert row.any(1).tolist() == (
                [True, True, False, False] if name == "labels" else [False, False, True, True]
            )
            seen.append(loss)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("classgraft.distillers.part_experts.fit", spying)
        method.distill(experts(), finder(seed=3), given)
    assert len(seen) == 3
    assert torch.equal(given.points, before)


def test_images_in_which_nothing_is_annotated_are_labelled_too() -> None:
    """All but one image are without any annotation; what is learnt is what there was to learn from all of them."""
    given = faces(40, seed=5)
    known = given.annotated & (torch.arange(40) == 3)[:, None]
    found = PartExperts(confidence=0.0, recipe=QUICK).distill(
        experts(), finder(seed=3), replace(given, annotated=known)
    )
    assert measured(found, faces(30, seed=9)).mean < 0.2


def test_what_experts_are_unsure_of_is_left_out() -> None:
    given = without_points(faces(40, seed=5, noise=40.0))
    method = PartExperts(confidence=0.0, recipe=replace(QUICK, epochs=1))
    sure = experts().located(given.view(torch.arange(40), CPU))[..., 2].detach()
    told = replace(method, confidence=float(sure.median())).told(experts(), given)
    assert torch.equal(told.annotated, sure >= sure.median())
    with pytest.raises(InputError, match="say nothing that counts"):
        replace(method, confidence=1.0).distill(experts(), finder(), given)
    with pytest.raises(InputError, match="say nothing that counts"):
        replace(method, experts=0.0, maps=0.0).distill(experts(), finder(), given)


def test_a_student_of_another_resolution_learns_the_experts_maps() -> None:
    coarse = torch.nn.Sequential(*finder(seed=3).network, torch.nn.AvgPool2d(2))
    found = PartExperts(confidence=0.0, recipe=replace(QUICK, epochs=1)).distill(
        experts(), Locator(coarse, NAMES, PAIRS), without_points(faces(10))
    )
    assert found(torch.zeros(1, 3, 16, 16)).shape == (1, 4, 4, 4)


# -- video poses ----------------------------------------------------------------------------------------------------


def clips(count: int = 50, seed: int = 4) -> Poses:
    return faces(count, seed, clips=3).bare()


def test_a_clip_that_stands_still_has_no_motion_and_a_mirror_turns_that_of_one_that_moves() -> None:
    given = clips(6)
    still = replace(given, pixels=given.pixels[torch.arange(18) // 3 * 3])
    method, index = VideoPose(confidence=0.0), torch.arange(12)
    for name in ("none", "flip", "crop-flip"):
        now, then = method.told(teacher(), still)
        moved = [part.targets(index, CPU, augmentation(name), 3, 1) for part in (now, then)]
        assert torch.equal(*moved)
    now, then = method.told(teacher(), given)
    plain, mirrored = (
        (now.targets(index, CPU, augmentation(name), 3, 1) - then.targets(index, CPU, augmentation(name), 3, 1))[
            ..., :2
        ]
        for name in ("none", "flip")
    )
    assert float(plain.abs().mean()) > 0.3
    turned = (mirrored - plain).flatten(1).abs().amax(1) > 1e-4
    assert 2 < int(turned.sum()) < 10
    swapped = plain[turned][:, [1, 0, 2, 3]] * torch.tensor([-1.0, 1.0])
    torch.testing.assert_close(mirrored[turned], swapped, rtol=1e-4, atol=1e-4)


def test_frames_of_which_the_teacher_is_unsure_are_left_out_and_annotations_are_not_read() -> None:
    given = clips(20)
    sure = teacher().located(given.view(torch.arange(60), CPU))[..., 2].detach().mean(1)
    method = VideoPose(confidence=float(sure.quantile(0.3)))
    now, then = method.told(teacher(), given)
    both = [i for i in range(60) if i % 3 and sure[i] >= method.confidence and sure[i - 1] >= method.confidence]
    assert 5 < len(both) < 40
    assert torch.equal(now.pixels, given.pixels[both])
    assert torch.equal(then.pixels, given.pixels[[i - 1 for i in both]])
    with pytest.raises(InputError, match="sure of no two frames in a row"):
        replace(method, confidence=1.0).distill(teacher(), seer(), given)
    annotated = faces(20, 4, clips=3)
    wrong = replace(annotated, points=annotated.points.roll(5, 0))
    quick = VideoPose(confidence=0.0, recipe=replace(QUICK, epochs=1))
    found = [quick.distill(teacher(), seer(), each).state_dict() for each in (annotated, wrong, given)]
    assert all(torch.equal(part, other[name]) for other in found[1:] for name, part in found[0].items())


def moves(model: object, given: Poses) -> tuple[float, float]:
    """How far from the truth its motions are, and how far it would be to say that nothing moves, in pixels squared."""
    now, then = given.consecutive()
    index = torch.arange(len(now))
    with torch.no_grad():
        _, motion = model.seen(now.view(index, CPU), then.view(index, CPU))  # type: ignore[attr-defined]
    truth, every = now.points - then.points, torch.ones(len(now), 4)
    return tuple(float(squared_distance(part, truth, every)) for part in (16 * motion, 0 * truth))  # type: ignore[return-value]


def test_pose_and_motion_are_learnt_from_a_teacher_and_motion_not_without_its_term() -> None:
    test, method = faces(30, 9, clips=3), VideoPose(confidence=0.0, recipe=replace(QUICK, epochs=25))
    given = clips()
    model = method.distill(teacher(), seer(), given)
    found, still = moves(model, test)
    assert found < 0.7 * still
    control, _ = moves(replace(method, motion=0.0).distill(teacher(), seer(), given), test)
    assert control > still
    untrained = method.distill(finder(seed=6), seer(), given)
    assert measured(model, test).mean < 0.25
    assert measured(untrained, test).mean > measured(model, test).mean + 0.1


def test_without_its_weight_motion_teaches_nothing() -> None:
    model = VideoPose(motion=0.0, confidence=0.0, recipe=replace(QUICK, epochs=2)).distill(teacher(), seer(), clips(10))
    last, fresh = (each.decoder[-1].weight for each in (model, seer()))
    assert torch.equal(last[8:], fresh[8:])
    assert not torch.equal(last[:8], fresh[:8])


# -- data distillation ----------------------------------------------------------------------------------------------


def test_one_look_is_the_control_and_many_are_put_together() -> None:
    free = without_points(faces(8, seed=3))
    method = KeypointDataDistillation(scales=(1.0,), mirrored=False)
    single = method.distilled(teacher(), free, 1.0)
    seen = free.view(torch.arange(8), CPU)
    torch.testing.assert_close(single.points, teacher().located(seen)[..., :2].detach())
    many = KeypointDataDistillation(scales=(0.9, 1.1))
    assert many.looks == ((0.9, False), (0.9, True), (1.1, False), (1.1, True))
    found = many.distilled(teacher(), free, 1.0)
    with torch.no_grad():
        torch.testing.assert_close(found.points, decoded(ensembled(teacher(), seen, many.looks), 16)[..., :2])
    assert float((found.points - single.points).abs().max()) > 0.01
    assert found.pairs == PAIRS


def test_as_large_a_share_of_points_is_kept_as_is_annotated_the_surest() -> None:
    free, method = without_points(faces(20, seed=3)), KeypointDataDistillation()
    found = method.distilled(teacher(), free, 0.25)
    assert int(found.annotated.sum()) == 20
    with torch.no_grad():
        sure = decoded(ensembled(teacher(), free.view(torch.arange(20), CPU), method.looks), 16)[..., 2]
    assert float(sure[found.annotated].min()) >= float(sure[~found.annotated].max())
    assert int(method.distilled(teacher(), free, 1.0).annotated.sum()) == 80


def test_unlabelled_images_help_beside_a_few_annotated_ones_and_wrong_points_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few, free, test = faces(6, seed=1), without_points(faces(60, seed=3)), faces(30, seed=9)
    method = KeypointDataDistillation(recipe=QUICK)
    helped, alone = (
        measured(way.train(teacher(), finder(seed=3), few, free), test).mean
        for way in (method, replace(method, strength=0.0))
    )
    assert helped < 0.9 * alone
    distilled = KeypointDataDistillation.distilled

    def wrong(*given: object) -> Poses:
        found = distilled(*given)  # type: ignore[arg-type]
        return replace(found, points=found.points.roll(7, 0))

    monkeypatch.setattr(KeypointDataDistillation, "distilled", wrong)
    assert measured(method.train(teacher(), finder(seed=3), few, free), test).mean > alone


def test_annotations_of_unlabelled_images_are_not_read() -> None:
    few, free = faces(6, seed=1), faces(10, seed=3)
    method = KeypointDataDistillation(recipe=replace(QUICK, epochs=1))
    found = [
        method.train(teacher(), finder(), few, each).state_dict()
        for each in (free, replace(free, points=free.points.roll(3, 0)), without_points(free))
    ]
    assert all(torch.equal(part, other[name]) for other in found[1:] for name, part in found[0].items())


# -- what does not fit ----------------------------------------------------------------------------------------------


def test_what_cannot_be_distilled_is_refused() -> None:
    free = without_points(faces(4))
    with pytest.raises(InputError, match="part-experts distills networks that find keypoints"):
        PartExperts().distill(classifier(), classifier(), plain_images())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="part-experts learns from images with points"):
        PartExperts().distill(finder(), finder(), plain_images())
    with pytest.raises(InputError, match="change places"):
        PartExperts().distill(finder(), finder(pairs=()), faces(4))
    with pytest.raises(InputError, match="distills a Locator into a Watcher"):
        VideoPose().distill(finder(), finder(), clips(2))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="learns from frames"):
        VideoPose().distill(finder(), seer(), free)
    with pytest.raises(InputError, match="No image is a frame"):
        VideoPose(confidence=0.0).distill(finder(), seer(), faces(4))
    method = KeypointDataDistillation()
    with pytest.raises(InputError, match="for classes take data-distillation"):
        method.train(classifier(), classifier(), plain_images(), plain_images())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="their pairs are not the model's"):
        method.train(finder(), finder(NAMES[::-1]), faces(4), free)
    with pytest.raises(InputError, match="Without scales"):
        replace(method, scales=()).train(finder(), finder(), faces(4), free)
    with pytest.raises(InputError, match="no point to learn from"):
        method.train(finder(("ear",)), finder(("ear",)), faces(4), free)
    with pytest.raises(InputError, match="learns from keypoints, not from classes"):
        teaching.self_train(None, (), (), "data-distillation-keypoints")  # type: ignore[arg-type]
