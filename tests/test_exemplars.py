"""Exemplar memory: what is chosen, how much of it, and what it takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from small import CLASSES, images
from torch import Tensor, nn

from classgraft.data.images import Images
from classgraft.data.squares import Memory, Squares, as_pixels
from classgraft.errors import InputError
from classgraft.models.preparation import Preparation
from classgraft.packing import merged
from classgraft.training.exemplars import Budget, Exemplars, bytes_of_one, herd, keep, share

BODY = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(27, 6))


def drawn(count: int, width: int = 5, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, width, generator=generator), dim=1)


def slow_herding(features: Tensor, count: int) -> list[int]:
    """Algorithm 4, word by word."""
    rows, chosen = features.double().tolist(), []
    mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    for k in range(1, min(count, len(rows)) + 1):
        best, least = -1, float("inf")
        for candidate, row in enumerate(rows):
            if candidate in chosen:
                continue
            total = [sum(rows[j][d] for j in chosen) + row[d] for d in range(len(mean))]
            distance = sum((mean[d] - total[d] / k) ** 2 for d in range(len(mean)))
            if distance < least - 1e-15:
                best, least = candidate, distance
        chosen.append(best)
    return chosen


def kept(memory: Exemplars | None, train: Images, amount: int, classes: tuple[str, ...] = CLASSES) -> Exemplars:
    return keep(memory, BODY, classes, train, Budget(amount, "images", True, 0))


def of_class(memory: Exemplars, k: int) -> Tensor:
    return memory.images.pixels[memory.images.labels == k]


def test_herding_worked_by_hand() -> None:
    # the mean of 0, 1, 2, 7 is 2.5: 2 is nearest (0.5). With 2: (2+0)/2 = 1, (2+1)/2 = 1.5, (2+7)/2 = 4.5; 1 is best.
    # With both: 3/3 = 1 and 10/3 = 3.33; 7 is best, and 0 is left
    assert herd(torch.tensor([[0.0], [1.0], [2.0], [7.0]]), 4).tolist() == [2, 1, 3, 0]


@pytest.mark.parametrize(("count", "kept"), [(1, 1), (7, 3), (30, 12), (9, 20)])
def test_herding_equals_the_paper_s_algorithm(count: int, kept: int) -> None:
    assert herd(drawn(count), kept).tolist() == slow_herding(drawn(count), kept)


def test_a_smaller_choice_is_a_prefix_of_a_larger_one() -> None:
    whole = herd(drawn(40), 40).tolist()
    assert sorted(whole) == list(range(40))
    assert all(herd(drawn(40), count).tolist() == whole[:count] for count in (1, 5, 20, 39))


@pytest.mark.parametrize("seed", range(5))
def test_herded_means_are_nearer_than_those_drawn_at_random(seed: int) -> None:
    features = drawn(200, 8, seed)
    herded = (features[herd(features, 10)].mean(0) - features.mean(0)).norm()
    orders = (torch.randperm(200, generator=torch.Generator().manual_seed(k)) for k in range(50))
    random = torch.stack([(features[order[:10]].mean(0) - features.mean(0)).norm() for order in orders])
    assert herded < random.median() / 3


def test_herding_sees_features_at_unit_length_in_evaluation_mode() -> None:
    """Scaling one image's features, or a body with dropout in training mode, changes no choice."""
    train = images(30)
    body = nn.Sequential(BODY, nn.Dropout(0.5)).train()
    unit = nn.Sequential(BODY, Scaled())
    budget = Budget(12, "images", True, 0)
    usual = keep(None, BODY, CLASSES, train, budget)
    for other in (body, unit):
        assert torch.equal(keep(None, other, CLASSES, train, budget).images.pixels, usual.images.pixels)
    assert body.training
    features = F.normalize(BODY(train.view(torch.arange(30), torch.device("cpu"))), dim=1)[train.labels == 1]
    chosen = slow_herding(features, 4)
    assert torch.equal(of_class(usual, 1), train.pixels[train.labels == 1][chosen])


class Scaled(nn.Module):
    """Each image's features times a number of its own."""

    def forward(self, features: Tensor) -> Tensor:
        return features * (1 + features[:, :1].abs())


def test_bytes_are_those_of_a_file(tmp_path: Path) -> None:
    for count in (30, 60):
        memory = kept(None, images(60), count)
        file = tmp_path / f"{count}.safetensors"
        save_file({"pixels": memory.images.pixels, "labels": memory.images.labels}, file)
        header = 8 + int.from_bytes(file.read_bytes()[:8], "little")
        assert memory.bytes == file.stat().st_size - header == count * (3 * 12 * 12 + 8)


def test_bytes_of_prepared_floats() -> None:
    preparation = Preparation(5, 5, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    plain = Images(torch.zeros(2, 1, 5, 5), torch.zeros(2, dtype=torch.int64), ("a",), preparation)
    assert bytes_of_one(plain) == 4 * 25 + 8


@pytest.mark.parametrize(
    ("amount", "unit", "expected"),
    [(20, "images", 6), (7, "images a class", 7), (3 * 440 * 2 + 100, "bytes", 2), (4 * 440, "bytes a class", 4)],
)
@pytest.mark.parametrize("herded", [True, False])
def test_a_budget_is_shared_by_the_classes(amount: int, unit: str, expected: int, herded: bool) -> None:
    assert bytes_of_one(images()) == 440
    memory = keep(None, BODY, CLASSES, images(60), Budget(amount, unit, herded, 0))  # type: ignore[arg-type]
    assert memory.images.labels.bincount().tolist() == [expected] * 3
    if unit == "bytes":
        assert memory.bytes <= amount
    assert share(amount, unit, 3, 440) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("amount", "unit", "least"), [(2, "images", 3), (439, "bytes a class", 440), (1000, "bytes", 1320)]
)
def test_a_budget_that_holds_no_exemplar_of_each_class_is_refused(amount: int, unit: str, least: int) -> None:
    with pytest.raises(InputError, match=f"budget of {amount} {unit} .* at least {least}"):
        share(amount, unit, 3, 440)  # type: ignore[arg-type]
    assert share(least, unit, 3, 440) == 1  # type: ignore[arg-type]


@pytest.mark.parametrize("herded", [True, False])
def test_earlier_classes_are_cut_to_a_prefix_when_others_come(herded: bool) -> None:
    budget = Budget(18, "images", herded, 0)
    first = keep(None, BODY, CLASSES, images(60), budget)
    later = replace(images(20, seed=1), labels=torch.zeros(20, dtype=torch.int64), classes=("yak",))
    second = keep(first, nn.Sequential(BODY, nn.Linear(6, 4)), (*CLASSES, "yak"), later, budget)
    assert second.images.labels.bincount().tolist() == [4, 4, 4, 4]
    assert second.images.classes == (*CLASSES, "yak")
    for k in range(3):
        assert torch.equal(of_class(second, k), of_class(first, k)[:4])


def test_a_known_class_with_new_images_shares_its_places_with_them() -> None:
    first = kept(None, images(60), 12)
    more = images(60, seed=1)
    more = more.subset(torch.nonzero(more.labels == 1)[:, 0])
    second = kept(first, more, 12)
    assert torch.equal(of_class(second, 0), of_class(first, 0))
    features = F.normalize(BODY(more.view(torch.arange(len(more)), torch.device("cpu"))), dim=1)
    new, old = more.pixels[slow_herding(features, 2)], of_class(first, 1)
    assert torch.equal(of_class(second, 1), torch.stack([old[0], new[0], old[1], new[1]]))  # 20 were seen of either
    assert second.seen == {"ant": 20, "bee": 40, "cow": 20}


@pytest.mark.parametrize("herded", [True, False])
def test_every_domain_keeps_its_share_of_a_class_that_comes_again_and_again(herded: bool) -> None:
    memory, budget = None, Budget(60, "images", herded, 0)
    for domain in range(5):
        task = images(120, seed=domain)
        task.pixels[:, 0, 0, 0] = domain
        memory = keep(memory, BODY, CLASSES, task, budget)
    for k in range(3):
        counts = of_class(memory, k)[:, 0, 0, 0].bincount(minlength=5).tolist()
        assert sum(counts) == 20
        assert min(counts) >= 3
        assert max(counts) <= 5


def test_a_class_made_of_two_keeps_images_of_both_when_its_share_shrinks() -> None:
    train = images(72)
    train.pixels[:, 0, 0, 0] = train.labels.to(torch.uint8)
    first = kept(None, train, 24)
    few = first.images.subset(torch.nonzero((first.images.labels != 2) | (torch.arange(24) < 20))[:, 0])  # 8, 8 and 4
    both = merged(Exemplars(few, first.seen), "ant", "cow")
    assert both.images.classes == ("ant", "bee")
    assert both.images.labels.tolist() == [0] * 12 + [1] * 8  # class after class
    assert both.seen == {"ant": 48, "bee": 24}
    assert of_class(both, 0)[:, 0, 0, 0].tolist() == [0, 2, 0] * 4
    for k, name in enumerate(("ant", "cow")):  # each in the order in which it was chosen
        own = of_class(both, 0)[of_class(both, 0)[:, 0, 0, 0] == 2 * k]
        assert torch.equal(own, few.of([name]).pixels)
    assert torch.equal(of_class(both, 1), of_class(first, 1))
    later = replace(images(20, seed=1), labels=torch.zeros(20, dtype=torch.int64), classes=("yak",))
    after = keep(both, BODY, ("ant", "bee", "yak"), later, Budget(18, "images", True, 0))
    assert of_class(after, 0)[:, 0, 0, 0].tolist() == [0, 2, 0, 0, 2, 0]
    assert merged(both, "elk", "bee").seen == {"ant": 48, "elk": 24}  # of the first class nothing was kept


def test_a_class_with_few_images_keeps_them_all_and_one_that_is_gone_none() -> None:
    few = images(60).subset(torch.tensor([0, 1, 2, 3, 4, 6]))  # of the classes 0 1 2 0 1 0
    memory = kept(None, few, 60)
    assert memory.images.labels.tolist() == [0, 0, 0, 1, 1, 2]
    left = kept(memory, few.subset(torch.arange(0)), 60, ("cow", "bee"))
    assert left.images.classes == ("cow", "bee")
    assert left.images.labels.tolist() == [0, 1, 1]


def test_images_that_stream_are_read_and_file_names_forgotten() -> None:
    train = replace(images(30), names=tuple(f"{i}.png" for i in range(30)))
    streaming = replace(train, pixels=as_pixels(Squares((Memory(train.pixels),), torch.arange(30))))
    one, other = kept(None, train, 9), kept(None, streaming, 9)
    assert isinstance(other.images.pixels, Tensor)
    assert torch.equal(one.images.pixels, other.images.pixels)
    assert one.images.names == ()


def test_the_seed_decides_a_random_choice() -> None:
    chosen = [
        keep(None, BODY, CLASSES, images(60), Budget(9, "images", False, seed)).images.pixels for seed in (0, 0, 1)
    ]
    assert torch.equal(chosen[0], chosen[1])
    assert not torch.equal(chosen[0], chosen[2])
