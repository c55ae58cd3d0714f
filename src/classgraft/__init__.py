"""Graft new classes onto a trained image classifier.

From a few photos, without the old data, without forgetting. The functions here mirror the commands; each is loaded
when first used, so that importing the package is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from classgraft.api import (
        evaluate,
        export,
        extend,
        import_model,
        load,
        merge,
        predict,
        remember,
        remove,
        rename,
        save,
        undo,
        verify,
    )
    from classgraft.bundle import Bundle
    from classgraft.data.images import Images, Task
    from classgraft.errors import InputError
    from classgraft.evaluator.bench import bench
    from classgraft.models.classifier import Classifier
    from classgraft.models.preparation import Preparation
    from classgraft.shrinking import distill
    from classgraft.teaching import self_train, start, train
    from classgraft.training.recipe import Recipe

_HOME = {
    **dict.fromkeys(
        (
            "evaluate",
            "export",
            "extend",
            "import_model",
            "load",
            "merge",
            "predict",
            "remember",
            "remove",
            "rename",
            "save",
            "undo",
            "verify",
        ),
        "classgraft.api",
    ),
    **dict.fromkeys(("self_train", "start", "train"), "classgraft.teaching"),
    "bench": "classgraft.evaluator.bench",
    "distill": "classgraft.shrinking",
    "Bundle": "classgraft.bundle",
    "Images": "classgraft.data.images",
    "Task": "classgraft.data.images",
    "InputError": "classgraft.errors",
    "Classifier": "classgraft.models.classifier",
    "Preparation": "classgraft.models.preparation",
    "Recipe": "classgraft.training.recipe",
}

__all__ = [
    "Bundle",
    "Classifier",
    "Images",
    "InputError",
    "Preparation",
    "Recipe",
    "Task",
    "bench",
    "distill",
    "evaluate",
    "export",
    "extend",
    "import_model",
    "load",
    "merge",
    "predict",
    "remember",
    "remove",
    "rename",
    "save",
    "self_train",
    "start",
    "train",
    "undo",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'classgraft' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME[name]), name)
