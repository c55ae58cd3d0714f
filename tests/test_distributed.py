"""Two processes equal one that computes their shards in turn and averages them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small import classifier, images
from together import COUNT, RECIPE, REMEMBERING

from classgraft.training.answers import answers
from classgraft.training.distributed import World
from classgraft.training.loop import Epochs


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What each process of a real ``torchrun`` came to."""
    folder = tmp_path_factory.mktemp("together")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(Path(__file__).with_name("together.py")), str(folder)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    names = ("plain", "dropout", "broken", *REMEMBERING)
    return {name: [torch.load(folder / f"{name}.{rank}") for rank in (0, 1)] for name in names}


def test_processes_agree(found: dict[str, list[dict[str, Any]]]) -> None:
    for one, two in (found[name] for name in ("plain", "dropout", "broken")):
        assert one["digest"] == two["digest"]
        assert one["history"] == two["history"]
        assert torch.equal(one["answers"], two["answers"])


def test_a_stopped_run_of_two_goes_on_to_the_same_bits(found: dict[str, list[dict[str, Any]]]) -> None:
    assert found["broken"][0]["digest"] == found["dropout"][0]["digest"]
    assert found["broken"][0]["history"] == found["dropout"][0]["history"]


@pytest.mark.parametrize("method", REMEMBERING)
def test_what_a_method_remembers_is_the_same_in_both_and_after_a_stop(
    found: dict[str, list[dict[str, Any]]], method: str
) -> None:
    one, two = found[method]
    assert one == two
    assert one["broken"] == one["whole"]


def test_two_processes_equal_one_that_averages_their_shards(found: dict[str, list[dict[str, Any]]]) -> None:
    """Bit for bit: a sum of two does not depend on their order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model, seen = classifier(), images(COUNT)
    model.body[0].weight.data = model.body[0].weight.data.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, 0.9, weight_decay=5e-4, nesterov=True)
    buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    history = []
    for epoch in range(RECIPE.epochs):
        optimizer.param_groups[0]["lr"] = RECIPE.rate(epoch / RECIPE.epochs)
        model.train()
        losses = []
        for batch in Epochs(seen, RECIPE, torch.device("cpu"))(epoch):
            before = [buffer.clone() for buffer in buffers]
            gradients, moved, values = [], [], []
            for rank in (0, 1):
                places, share = World(rank, 2).share(torch.arange(len(batch.index)))
                for buffer, start in zip(buffers, before, strict=True):
                    buffer.copy_(start)
                loss = F.cross_entropy(model(batch.images[places]), batch.targets[places])
                size = 0.1 * model.head.blocks[0].bias.square().sum()
                optimizer.zero_grad()
                torch.stack([loss, size]).sum().backward()  # type: ignore[no-untyped-call]
                gradients.append([share * p.grad for p in model.parameters()])  # type: ignore[operator]
                moved.append([share * buffer for buffer in buffers])
                values.append(share * loss.detach())
            for parameter, one, two in zip(model.parameters(), *gradients, strict=True):
                parameter.grad = one + two
            for buffer, one, two in zip(buffers, *moved, strict=True):
                buffer.copy_(one + two)
            optimizer.step()
            losses.append(values[0] + values[1])
        history.append(float(sum(losses)) / len(losses))
    together = found["plain"][0]
    assert [epoch["class"] for epoch in together["history"]] == history
    for name, tensor in model.state_dict().items():
        if name != "body.1.num_batches_tracked":  # the oracle looked twice as often
            assert torch.equal(together["model"][name], tensor), name
    model.load_state_dict(together["model"])
    model.body[0].weight.data = model.body[0].weight.data.contiguous()
    assert torch.equal(together["answers"], answers(model, seen))
    torch.set_num_threads(threads)


def test_shares_cover_a_batch_once_and_weigh_one() -> None:
    for count in (1, 3, 4, 7, 100):
        for size in (1, 2, 3):
            parts = [World(rank, size).share(torch.arange(count)) for rank in range(size)]
            assert sum(share for _, share in parts) == pytest.approx(1)
            if count >= 2 * size:
                assert torch.equal(torch.cat([index for index, _ in parts]), torch.arange(count))
