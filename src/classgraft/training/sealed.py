"""A file of tensors and plain values that is whole, with its SHA-256 in front, or not used; and the one before it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from pathlib import Path
from typing import Any

import torch

from classgraft.errors import InputError
from classgraft.storage import flush

_DIGEST = hashlib.sha256().digest_size


def write(path: Path, content: dict[str, Any]) -> None:
    """Put it in place of what is there, which becomes the previous one; at every instant one of the two is whole.

    Raises:
        InputError: the disk does not take it.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    body = buffer.getbuffer()
    fresh = path.with_suffix(".fresh")
    try:
        with open(fresh, "wb") as file:
            file.write(hashlib.sha256(body).digest())
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        if _whole(path):  # a broken file must not push out a good one
            path.replace(previous(path))
        fresh.replace(path)
        flush(path.parent)
    except OSError as error:
        raise InputError(
            f"'{path}' could not be written ({error.strerror}); make room and repeat the command."
        ) from error


def read(path: Path) -> dict[str, Any] | None:
    """None if the file is not there or not whole."""
    with contextlib.suppress(OSError):
        content = memoryview(path.read_bytes())
        if hashlib.sha256(content[_DIGEST:]).digest() == content[:_DIGEST]:
            return torch.load(io.BytesIO(content[_DIGEST:]), "cpu", weights_only=True)  # type: ignore[no-any-return]
    return None


def _whole(path: Path) -> bool:
    """Whether it is there with the digest that it states; it is read in small pieces, and no tensor is made."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return file.read(_DIGEST) == hashlib.file_digest(file, "sha256").digest()
    return False


def previous(path: Path) -> Path:
    """Where the file that was there before is."""
    return path.with_suffix(".previous")
