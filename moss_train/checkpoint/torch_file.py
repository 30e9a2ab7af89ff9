"""Small files that a rank wrote for itself with `torch.save`."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from model.errors import InputError


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
