"""Small files that a rank wrote for itself with `torch.save`."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import torch

from model.errors import InputError


def write_torch_file(value: Any, path: Path) -> None:
    """Write a value that is small enough to be held twice.

    Raises:
        OSError: the disk refuses it, which torch's own writer would not say.
    """
    content = io.BytesIO()
    torch.save(value, content)
    path.write_bytes(content.getvalue())


def read_torch_file(path: Path) -> Any:
    """Its content.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch itself compares no checksums, and a changed bit may still unpickle
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"its part {damaged} does not have the checksum that it was written with")
        return torch.load(path, weights_only=False)
    except Exception as error:  # whatever unpickling makes of damaged bytes
        reason = " ".join(f"{error}".split()) or type(error).__name__
        raise InputError(f"{path} cannot be read ({reason}); copy the checkpoint again or use an earlier one") from None
