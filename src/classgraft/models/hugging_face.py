"""Image classifiers of the transformers library: ``hf:ID`` or ``hf:FOLDER``.

A network is built from its configuration alone, which a bundle keeps, so that a bundle needs neither the hub nor the
folder. No code that comes with a model is run, and weights are read from safetensors or by torch's weights-only reader.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from classgraft.errors import InputError
from classgraft.models.preparation import Preparation, usual_resize

_FOREIGN = ("auto_map", "quantization_config", "name_or_path", "_name_or_path", "torch_dtype", "dtype")
"""Keys of a configuration that lead to code or files, or change the numbers' type."""


def configuration(where: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a model on the hub or in a folder, with some values changed.

    Raises:
        InputError: it is not there, or not of an image classifier.
    """
    transformers = _library()
    with _told(where):
        raw, _ = transformers.PretrainedConfig.get_config_dict(where)
        if "architecture" in raw and raw.get("model_type", "timm_wrapper") == "timm_wrapper":
            raise InputError(
                f"hf:{where} is a network of timm; import it as timm:{raw['architecture']} with --weights."
            )
        found, unknown = transformers.AutoConfig.from_pretrained(
            where, trust_remote_code=False, return_unused_kwargs=True, **arguments
        )
    for key in unknown:
        raise InputError(f"'{key}' is no argument of hf:{where}; see its config.json.")
    config = {key: value for key, value in found.to_dict().items() if key not in _FOREIGN}
    if type(found) not in _classifiers(transformers):
        raise InputError(f"hf:{where} is a {found.model_type}, which is no image classifier in transformers.")
    return config


def build(config: Mapping[str, Any], classes: int) -> nn.Module:
    """A network with fresh weights and ``classes`` outputs."""
    transformers = _library()
    values = {k: v for k, v in config.items() if k not in (*_FOREIGN, "id2label", "label2id", "num_labels")}
    if values.get("model_type") == "timm_wrapper":
        raise InputError("a configuration of the type timm_wrapper is not built; import the network as timm:NAME.")
    with _told(str(values.get("model_type"))):
        made = transformers.AutoConfig.for_model(**values, num_labels=classes)
        network: nn.Module = transformers.AutoModelForImageClassification.from_config(made, trust_remote_code=False)
        return network


def pretrained(where: str, config: Mapping[str, Any]) -> nn.Module:
    """The network with the weights that lie beside its configuration.

    Raises:
        InputError: there are none, or they leave a part of the network without.
    """
    transformers = _library()
    with _told(where):
        made = transformers.AutoConfig.for_model(**{k: v for k, v in config.items() if k not in _FOREIGN})
        network, found = transformers.AutoModelForImageClassification.from_pretrained(
            where, config=made, trust_remote_code=False, weights_only=True, output_loading_info=True, dtype="float32"
        )
    lacking = sorted(map(str, [*found["missing_keys"], *found.get("mismatched_keys", ())]))
    if lacking:
        raise InputError(
            f"hf:{where} has no fitting weights for {len(lacking)} tensors of the classifier ({lacking[0]} ...);"
            " it was saved without its head, or for other work."
        )
    return network  # type: ignore[no-any-return]


def names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The class names that the configuration states, in head order; none where they are only numbered."""
    stated = {int(key): str(value) for key, value in (config.get("id2label") or {}).items()}
    listed = tuple(stated[key] for key in sorted(stated))
    return () if all(name == f"LABEL_{i}" for i, name in enumerate(listed)) else listed


def preparation(where: str, config: Mapping[str, Any]) -> Preparation:
    """What the model's image processor says; without one, what its configuration says of the size."""
    transformers = _library()
    try:
        stated, _ = transformers.image_processing_utils.BaseImageProcessor.get_image_processor_dict(where)
    except OSError:
        side = _side(config.get("image_size")) or 224
        return Preparation(side, usual_resize(side), (0.5,) * 3, (0.5,) * 3)
    with contextlib.suppress(Exception):  # what the file leaves out, as its class has it; a file may name no class
        stated = transformers.AutoImageProcessor.from_pretrained(where, trust_remote_code=False).to_dict()
    refused = {
        "do_flip_channel_order": bool(stated.get("do_flip_channel_order")),
        "rescale_offset": bool(stated.get("rescale_offset")),
        "do_rescale": stated.get("do_rescale") is False,
        "rescale_factor": abs((stated.get("rescale_factor") or 1 / 255) - 1 / 255) > 1e-6,
        "do_pad": bool(stated.get("do_pad")),
    }
    for key in (key for key, odd in refused.items() if odd):
        raise InputError(
            f"hf:{where} wants pictures in a way that is not kept here ({key}: {stated.get(key)}); give the network from"
            " Python, with that as its first step."
        )
    stretched = isinstance(stated.get("size"), Mapping) and "shortest_edge" not in stated["size"]
    resize = _side(stated.get("size")) or _side(config.get("image_size")) or 224
    size = _side(stated.get("crop_size")) if stated.get("do_center_crop", "crop_size" in stated) else None
    if "crop_pct" in stated and resize < 384:  # ConvNeXt's own: the size is the crop's
        size, resize = resize, int(resize / stated["crop_pct"])
    size = min(size or resize, resize)
    if not stated.get("do_normalize", True):
        return Preparation(size, resize, (0.0,) * 3, (1.0,) * 3, stretched)
    mean, std = (tuple(map(float, stated.get(key) or (0.5,) * 3)) for key in ("image_mean", "image_std"))
    if stated.get("include_top"):  # EfficientNet's own: divided by the deviation once more
        std = tuple(value**2 for value in std)
    return Preparation(size, resize, mean, std, stretched)  # type: ignore[arg-type]


def _side(stated: Any) -> int | None:
    """One side of a size as image processors write it."""
    if isinstance(stated, Mapping):
        stated = stated.get("shortest_edge") or stated.get("height")
    elif isinstance(stated, list | tuple) and stated:
        stated = stated[0]
    return int(stated) if stated else None


def _classifiers(transformers: ModuleType) -> Any:
    return transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING


def _library() -> ModuleType:
    try:
        library = importlib.import_module("transformers")
    except ImportError as error:
        raise InputError(
            "Models of Hugging Face need transformers; install it with pip install 'classgraft[hf]'."
        ) from error
    library.utils.logging.set_verbosity_error()
    library.utils.logging.disable_progress_bar()
    return library


@contextlib.contextmanager
def _told(where: str) -> Iterator[None]:
    """What transformers raises, as a sentence."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # the library raises nearly anything
        reason = " ".join((str(error) or type(error).__name__).split()).split(". ")[0][:200].rstrip(".")
        kind = "folder" if os.sep in where and Path(where).exists() else "name or folder"
        raise InputError(f"hf:{where} cannot be used ({reason}); check the {kind}.") from error
