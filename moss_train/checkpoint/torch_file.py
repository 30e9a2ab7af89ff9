"""Small files that a rank wrote for itself with `torch.save`."""

from __future__ import annotations

import pickle
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
        return torch.load(path, weights_only=False)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise InputError(f"{path} cannot be read ({error}); copy the checkpoint again or use an earlier one") from None
