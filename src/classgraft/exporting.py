"""A bundle as other tools read it: timm, Hugging Face transformers, ONNX, ``torch.export``; each checked when written.

What was written is opened again by the tool it is for and asked about the same images as the bundle itself.
"""

from __future__ import annotations

import copy
import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from classgraft.bundle import Bundle, is_plain, tensors_of, timm_configuration
from classgraft.data.images import Images
from classgraft.data.probes import probes
from classgraft.errors import InputError, nearest
from classgraft.models import heads
from classgraft.models.classifier import Classifier, linear
from classgraft.storage import replaced
from classgraft.training.answers import answers

FORMATS = ("timm", "hf", "onnx", "torch-export")
NEEDS = {"hf": ("transformers",), "onnx": ("onnx", "onnxscript", "onnxruntime")}
"""Format -> the packages that it takes; the extra that brings them is called as the format."""
TOLERANCE = 1e-3
"""Probability by which an export may differ at most; rounding alone stays far below."""
BATCH = 16
"""Images at a time when an export is checked; before that one alone, and three."""

Run = Callable[[Tensor], Tensor]
"""Prepared images (B, 3, S, S) to logits (B, K)."""


@dataclass(frozen=True)
class Parity:
    """How near an export's answers come to the bundle's own."""

    images: int
    generated: bool
    """Whether they were generated, for want of others."""
    difference: float
    """The largest between two probabilities."""
    agreement: float
    """Share of images with the same most likely class."""

    @property
    def sentence(self) -> str:
        kind = "images generated from noise" if self.generated else "images"
        return (
            f"on {self.images} {kind} no probability differs by more than {self.difference:.1e}"
            f" and {self.agreement:.1%} have the same top class"
        )


def export(bundle: Bundle, format: str, out: str | Path, images: Images | None = None) -> Parity:
    """Write the model in a format of another tool, and compare the two.

    The blocks of a linear head become one layer, which moves logits by rounding: joint products add in another order.

    Args:
        bundle: of which the names and the preprocessing go along.
        format: one of ``FORMATS``.
        out: a new or empty folder. timm and hf: ``config.json`` and ``model.safetensors``. onnx: ``model.onnx``;
            torch-export: ``model.pt2``; each with ``model.json`` beside it, which says how an image is prepared and what
            the classes are called, and is in the file's own metadata too.
        images: to compare on, with any labels; None: generated ones.

    Raises:
        InputError: for an unknown format, a package that is missing, a model that the format cannot hold, a folder that
            is not empty, or answers that differ by more than rounding.
    """
    write = {"timm": _timm, "hf": _hugging_face, "onnx": _onnx, "torch-export": _torch_export}.get(format)
    if write is None:
        raise InputError(f"There is no format '{format}'.{nearest(format, FORMATS)}")
    check_needs(format)
    folder = Path(out)
    if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"'{folder}' is there already and not an empty folder; name a new one.")
    bundle = _on_cpu(bundle)
    with replaced(folder) as fresh:
        found = _compared(bundle, write(bundle, fresh), images)
        if not found.difference <= TOLERANCE:
            raise InputError(
                f"The {format} export of '{bundle.architecture.source}' is not the same model ({found.sentence});"
                " nothing was written, choose another format."
            )
    return found


def check_needs(format: str) -> None:
    """Whether the packages that a format takes are installed.

    Raises:
        InputError: one is not.
    """
    missing = [name for name in NEEDS.get(format, ()) if find_spec(name) is None]
    if missing:
        raise InputError(f"The format {format} takes {' and '.join(missing)}; install classgraft[{format}].")


def _on_cpu(bundle: Bundle) -> Bundle:
    """With the model in 32 bits and in evaluation mode."""
    return replace(bundle, model=copy.deepcopy(bundle.model).cpu().float().eval().requires_grad_(False))


def _merged(model: Classifier) -> Classifier:
    """With one layer for all linear rows; heads of other rules stay as they are."""
    if not heads.plain(model.head):
        return model
    layer = linear(model.head.weight, model.head.bias)
    return model.headed([layer], model.classes).eval().requires_grad_(False)


def _compared(bundle: Bundle, run: Run, images: Images | None) -> Parity:
    seen = probes(bundle.preparation, bundle.classes) if images is None else images
    ours = answers(bundle.model, seen).softmax(1)
    index = torch.arange(len(seen))
    with torch.inference_mode():
        theirs = [
            run(seen.view(part, torch.device("cpu")).contiguous()).float().softmax(1)
            for part in (index[:1], index[1:4], *index[4:].split(BATCH))
            if len(part)
        ]
    found = torch.cat(theirs)
    same = (found.argmax(1) == ours.argmax(1)).double().mean()
    return Parity(len(seen), images is None, float((found - ours).abs().max()), float(same))


# -- folders of timm and transformers -----------------------------------------------------------------------------


def _timm(bundle: Bundle, folder: Path) -> Run:
    import timm

    _write_timm(bundle, folder, {})
    return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()  # type: ignore[no-any-return]


def _hugging_face(bundle: Bundle, folder: Path) -> Run:
    from transformers import AutoModelForImageClassification

    # transformers runs timm's networks itself and reads timm's own keys
    _write_timm(bundle, folder, {"model_type": "timm_wrapper", "architectures": ["TimmWrapperForImageClassification"]})
    network = AutoModelForImageClassification.from_pretrained(folder, local_files_only=True).eval()
    return lambda images: network(images).logits  # type: ignore[no-any-return]


def _write_timm(bundle: Bundle, folder: Path, more: dict[str, Any]) -> None:
    model, other = bundle.model, ""
    if bundle.architecture.scheme != "timm":
        other = f"the network is {bundle.architecture.source}, none of timm's"
    elif not heads.plain(model.head):
        rule = next(part for part in model.head.parts if type(part) is not nn.Linear)
        other = f"the head is no linear layer ({type(rule).__name__})"
    elif not is_plain(bundle):
        other = "the network has parts that timm's own does not have"
    elif model.body.state_dict().keys() != _plain_keys(bundle):
        other = "the network has other weights than timm's own"
    if other:
        raise InputError(f"timm and transformers cannot hold this model: {other}; choose onnx or torch-export.")
    save_file(tensors_of(bundle), folder / "model.safetensors", metadata={"format": "pt"})
    config = {**timm_configuration(bundle), **more}
    (folder / "config.json").write_text(json.dumps(config, ensure_ascii=False, indent=1), "utf-8")


def _plain_keys(bundle: Bundle) -> set[str]:
    network = bundle.architecture.build(len(bundle.classes))
    return {name for name in network.state_dict() if not name.startswith(f"{bundle.head}.")}


# -- graphs --------------------------------------------------------------------------------------------------------


def description(bundle: Bundle) -> dict[str, Any]:
    """What a graph does not say by itself: how an image is prepared, and what the classes are called."""
    preparation = bundle.preparation
    return {
        "format": 1,
        "source": bundle.architecture.source,
        "input": {
            "name": "images",
            "shape": ["batch", 3, preparation.size, preparation.size],
            "type": "float32",
            "channels": "RGB",
        },
        "preparation": {
            ("resize_both_sides" if preparation.stretched else "resize_short_side"): preparation.resize,
            "interpolation": "bicubic with antialias, on 8 bit pixels",
            "crop_centre": preparation.size,
            "scale": 1 / 255,
            "mean": list(preparation.mean),
            "std": list(preparation.std),
        },
        "output": {"name": "logits", "shape": ["batch", len(bundle.classes)], "probabilities": "softmax over classes"},
        "classes": list(bundle.classes),
        "added": list(bundle.added),
    }


def _graph(bundle: Bundle) -> torch.export.ExportedProgram:
    side = bundle.preparation.size
    example = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    try:
        return torch.export.export(
            _merged(bundle.model), (example,), dynamic_shapes={"images": {0: torch.export.Dim("batch")}}
        )
    except Exception as error:  # networks may do anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"'{bundle.architecture.source}' cannot be written as one graph ({reason}); choose another format."
        ) from error


def _torch_export(bundle: Bundle, folder: Path) -> Run:
    words = json.dumps(description(bundle), ensure_ascii=False, indent=1)
    (folder / "model.json").write_text(words, "utf-8")
    packed = io.BytesIO()  # torch's own writer of files ends the process where the disk is full
    torch.export.save(_graph(bundle), packed, extra_files={"model.json": words})
    (folder / "model.pt2").write_bytes(packed.getbuffer())
    return torch.export.load(folder / "model.pt2").module()


def _onnx(bundle: Bundle, folder: Path) -> Run:
    import onnxruntime

    words = json.dumps(description(bundle), ensure_ascii=False, indent=1)
    (folder / "model.json").write_text(words, "utf-8")
    program = torch.onnx.export(
        _graph(bundle), input_names=["images"], output_names=["logits"], dynamo=True, verbose=False
    )
    assert program is not None
    program.model.metadata_props["classgraft"] = words
    program.save(folder / "model.onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])
