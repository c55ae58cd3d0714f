"""Draws that belong to a seed, an epoch and a place in the set."""

from __future__ import annotations

import pytest
import torch

from classgraft.data.draws import uniform

MASK = (1 << 64) - 1
STEP = 0x9E3779B97F4A7C15


def mixed(x: int) -> int:
    """SplitMix64's step and finaliser in Python's integers."""
    x = (x + STEP) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def slow_reference(seed: int, epoch: int, place: int, draw: int) -> float:
    key = (mixed(mixed(epoch & MASK)) + mixed(mixed(seed & MASK) ^ 1)) & MASK
    return (mixed((mixed(place ^ key) + draw * STEP) & MASK) >> 40) / 2**24


def test_the_mixing_is_splitmix64() -> None:
    assert [mixed(0), mixed(STEP)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]  # its first two outputs for seed 0


@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (1, 0), (0, 1), (123456789, 29), (-5, 3), (2**40 + 7, 1000)])
def test_draws_equal_a_slow_reference(seed: int, epoch: int) -> None:
    places = [0, 1, 2, 99, 123456]
    expected = [[slow_reference(seed, epoch, place, draw) for draw in range(8)] for place in places]
    assert uniform(seed, epoch, torch.tensor(places), 8).tolist() == expected


def test_draws_are_the_same_in_any_batch_and_order() -> None:
    whole = uniform(3, 5, torch.arange(64), 8)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.cat([uniform(3, 5, part, 8) for part in order.split(7)]), whole[order])


def test_more_draws_begin_with_the_fewer() -> None:
    assert torch.equal(uniform(0, 0, torch.arange(9), 3), uniform(0, 0, torch.arange(9), 8)[:, :3])


def test_draws_are_float32_in_the_half_open_unit_interval() -> None:
    drawn = uniform(0, 0, torch.arange(200_000), 4)
    assert drawn.dtype == torch.float32
    assert drawn.shape == (200_000, 4)
    assert 0 <= float(drawn.min()) < 1e-4
    assert 1 - 1e-4 < float(drawn.max()) < 1


def test_draws_are_uniform() -> None:
    drawn = uniform(7, 2, torch.arange(50_000), 4)
    for column in drawn.T:
        counts = torch.histc(column, 100, 0, 1)
        assert 60 < float(((counts - 500) ** 2 / 500).sum()) < 150  # chi-square with 99 degrees of freedom


@pytest.mark.parametrize(
    ("first", "second"),
    [((0, 0), (1, 0)), ((0, 0), (0, 1)), ((0, 1), (1, 0)), ((7, 7), (8, 8)), ((0, 0), (7919, 0))],
    ids=str,
)
def test_another_seed_or_epoch_gives_unrelated_draws(first: tuple[int, int], second: tuple[int, int]) -> None:
    one, other = (uniform(*key, torch.arange(20_000), 1)[:, 0] for key in (first, second))
    assert int((one == other).sum()) < 10
    assert abs(float(torch.corrcoef(torch.stack([one, other]))[0, 1])) < 0.03


def test_neighbouring_places_and_draws_are_unrelated() -> None:
    drawn = uniform(0, 0, torch.arange(20_000), 4)
    pairs = [(drawn[:-1, 0], drawn[1:, 0]), (drawn[:, 0], drawn[:, 1]), (drawn[:-1, 1], drawn[1:, 0])]
    for one, other in pairs:
        assert abs(float(torch.corrcoef(torch.stack([one, other]))[0, 1])) < 0.03


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    uniform(0, 0, torch.arange(10), 8)
    assert torch.equal(torch.get_rng_state(), before)
