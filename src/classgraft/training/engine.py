"""How the arithmetic is done: chosen once for a run from its length and the hardware, seen by no method.

Training alone is touched. Evaluation, remembered features and export stay in fp32: bfloat16 moved 2.5 % of the top-1
answers of a trained network in a trial. Only bodies (a module's part named ``body``) are lowered or compiled; heads grow
and losses subtract near-equal numbers, so both stay eager and in fp32. So do depthwise convolutions on a CPU, which have no
fast bf16 kernels there: with them in bf16 a MobileNetV3 learns half as fast as in fp32.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from classgraft.errors import InputError
from classgraft.training.distributed import world
from classgraft.training.hardware import can_compile, has_amx, has_bf16, keep_memory

Precision = Literal["fp32", "bf16"]
Work = float
"""Images that a run looks at, counted in images of 32 x 32 pixels."""

LOWERED: Work = 20_000
"""Below this a run takes seconds, and fp32 it stays."""
COMPILED: Work = 500_000
"""Below this compiling takes longer than it saves."""
COMPILED_AMX: Work = 200_000
"""The same on a CPU whose products are so fast that passes over memory are what is left, which compiling joins."""
BACKEND: str | Callable[..., Any] = "inductor"
"""Of ``torch.compile``."""

log = logging.getLogger("classgraft")


@dataclass(frozen=True)
class Engine:
    """Device and arithmetic of a run."""

    device: str = "cpu"
    precision: Precision = "fp32"
    compile: bool = False
    channels_last: bool = True
    processes: int = 1

    def __str__(self) -> str:
        words = [self.device, self.precision]
        words += ["channels-last"] * self.channels_last + ["compiled bodies"] * self.compile
        return ", ".join(words + [f"{self.processes} processes"] * (self.processes > 1))

    @property
    def exact(self) -> Engine:
        """For gradients of gradients: no compiled graph has a second derivative."""
        return replace(self, precision="fp32", compile=False)

    @contextmanager
    def ready(self, *modules: nn.Module) -> Iterator[None]:
        """Inside, this engine is ``current`` and the bodies of these modules compute its way, on the same parameters."""
        with ExitStack() as after:
            after.callback(_running.reset, _running.set(self))
            for module in modules:
                if self.channels_last:
                    _lay_out(module, torch.channels_last)
                    after.callback(_lay_out, module, torch.contiguous_format)
                for body in _bodies(module):
                    if self.precision == "bf16" or self.compile:
                        _replace(body, _Forward(body), after)
                    if self.precision == "bf16" and self.device == "cpu":
                        for part in filter(_is_depthwise, body.modules()):
                            _replace(part, _Full(part), after)
            yield


def _replace(part: nn.Module, forward: Callable[..., Any], after: ExitStack) -> None:
    """Put this in the place of a part's forward until ``after`` is closed, unless one stands there."""
    if "forward" not in vars(part):
        object.__setattr__(part, "forward", forward)
        after.callback(object.__delattr__, part, "forward")


@dataclass
class _Forward:
    """A body's forward in the current engine's arithmetic.

    A copy of the body takes a copy of this along, bound to the copy; outside of the run it is plain again.
    """

    body: nn.Module

    def __call__(self, images: Tensor, *given: Any, **named: Any) -> Any:
        plain = type(self.body).forward
        forward = _compiled(plain, BACKEND) if current().compile else plain
        with torch.autocast(images.device.type, torch.bfloat16, enabled=current().precision == "bf16"):
            return _full(forward(self.body, images, *given, **named))


@dataclass
class _Full:
    """The forward of a part of a lowered body that stays in fp32 where a backward pass follows, which is what is slow.

    Plain in a copy that outlives the run.
    """

    part: nn.Module

    def __call__(self, x: Tensor) -> Any:
        if not torch.is_grad_enabled():
            return type(self.part).forward(self.part, x)
        with torch.autocast(x.device.type, enabled=False):
            return type(self.part).forward(self.part, _full(x))


def _is_depthwise(part: nn.Module) -> bool:
    return isinstance(part, nn.Conv2d) and part.groups == part.in_channels > 1


@functools.cache
def _compiled(forward: Callable[..., Any], backend: str | Callable[..., Any]) -> Callable[..., Any]:
    import torch._dynamo.config  # takes seconds

    # a shape is compiled for itself: which of several kernels serves a batch must not depend on what came before
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    # a graph made without hooks would serve a body that has some since (stochastic depth), which then never run
    torch._dynamo.config.skip_nnmodule_hook_guards = False
    return torch.compile(forward, backend=backend, dynamic=False)  # type: ignore[call-overload,no-any-return]


def _full(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.float() if output.dtype == torch.bfloat16 else output
    if isinstance(output, list | tuple):
        return type(output)(map(_full, output))
    return {key: _full(value) for key, value in output.items()} if isinstance(output, dict) else output


def _bodies(module: nn.Module) -> list[nn.Module]:
    """The outermost parts named ``body``."""
    found: list[nn.Module] = []
    for part in module.modules():
        body = getattr(part, "body", None)
        if isinstance(body, nn.Module) and not any(body is inner for outer in found for inner in outer.modules()):
            found.append(body)
    return found


def _lay_out(module: nn.Module, layout: torch.memory_format) -> None:
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)


_PLAIN = Engine(channels_last=False)
_wishes: ContextVar[tuple[tuple[str, Any], ...]] = ContextVar("wishes", default=())
_running: ContextVar[Engine] = ContextVar("running", default=_PLAIN)
_whole: ContextVar[Work] = ContextVar("whole", default=0.0)
_said: set[str] = set()


@contextmanager
def engine(
    *,
    device: str | None = None,
    precision: Precision | None = None,
    compile: bool | None = None,
    channels_last: bool | None = None,
) -> Iterator[None]:
    """Inside, runs use this; what is left at None is chosen for each.

    Raises:
        InputError: there is no such device here.
    """
    wishes = {"device": device, "precision": precision, "compile": compile, "channels_last": channels_last}
    if device is not None:
        try:
            torch.empty(1, device=device).cpu()
        except (RuntimeError, AssertionError, NotImplementedError) as error:  # no such name, not built in, not there
            raise InputError(f"The device '{device}' is not to be had here; leave it out, or say cpu.") from error
    token = _wishes.set((*_wishes.get(), *((name, wish) for name, wish in wishes.items() if wish is not None)))
    try:
        yield
    finally:
        _wishes.reset(token)


@contextmanager
def part_of(work: Work) -> Iterator[None]:
    """Inside, every run is a part of so much work, and its engine is chosen for the whole."""
    token = _whole.set(work)
    try:
        yield
    finally:
        _whole.reset(token)


def device() -> torch.device:
    """Where models and images should be put: what was wished for, else the accelerator if there is one."""
    wished = dict(_wishes.get()).get("device")
    if wished is None and torch.cuda.is_available():
        wished = f"cuda:{world().local_rank}" if world().size > 1 else "cuda"
    return torch.device(wished or "cpu")


def choose(where: torch.device, work: Work, modules: Sequence[nn.Module] = ()) -> Engine:
    """The engine of a run of this length on the device where its modules are; said in one line when it is a new one.

    What has depthwise convolutions is not compiled on a CPU: a MobileNetV2 takes two minutes there and is no faster.
    """
    wishes, work = {name: wish for name, wish in _wishes.get() if name != "device"}, max(work, _whole.get())
    precision: Precision = "bf16" if work >= LOWERED and has_bf16(where.type) else "fp32"
    enough = COMPILED_AMX if has_amx(where.type) else COMPILED
    slow = where.type == "cpu" and any(_is_depthwise(part) for module in modules for part in module.modules())
    worth = work >= enough and not slow and can_compile(where.type)
    if where.type == "cpu" and work >= LOWERED:
        keep_memory()
    found = replace(Engine(where.type, precision, worth, True, world().size), **wishes)
    if str(found) not in _said:
        _said.add(str(found))
        log.info("engine: %s", found)
    return found


def current() -> Engine:
    """The engine of the run that is going on; plain fp32 outside of any."""
    return _running.get()


def first_device(modules: Sequence[object]) -> torch.device:
    """Where the first tensor of these lies."""
    for module in modules:
        if isinstance(module, nn.Module):
            for tensor in (*module.parameters(), *module.buffers()):
                return tensor.device
        if isinstance(module, Tensor):
            return module.device
    return torch.device("cpu")
