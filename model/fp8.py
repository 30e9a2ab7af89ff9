"""Products in 8-bit floating point: whether they can be had, which sizes they take, and Transformer Engine's scopes for them.

Transformer Engine is imported inside the functions only. It computes in fp8 within its `autocast` scope; the outermost
scope, when it is left, moves on the history of all tensors under delayed scaling. The scopes below never move it.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from model.config import VideoMllamaConfig
from model.errors import InputError

RECIPES = ("none", "delayed", "current")
MULTIPLE = 16
"""Rows and widths of an fp8 product must be multiples of this: its kernels read 16 bytes at a time."""

LEAST_CAPABILITY = (8, 9)
"""First compute capability with fp8 products (Ada); Hopper is (9, 0)."""


def transformer_engine_problem() -> str | None:
    """Why Transformer Engine cannot be used in this process; None if it can."""
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    if importlib.util.find_spec("transformer_engine") is None:
        return "it is not installed (pip install 'transformer-engine[pytorch]', or the Dockerfile's versions)"
    try:
        importlib.import_module("transformer_engine.pytorch")
    except (ImportError, OSError, RuntimeError) as error:
        return f"it does not import ({error}); build it again for the installed torch and CUDA, see the Dockerfile"
    return None


def fp8_problem() -> str | None:
    """Why Transformer Engine cannot compute fp8 products on this device; None if it can."""
    problem = transformer_engine_problem()
    return fp8_device_problem() if problem is None else f"Transformer Engine cannot be used: {problem}"


def fp8_device_problem() -> str | None:
    """Why this device has no fp8 products; None if it has."""
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    capability = torch.cuda.get_device_capability()
    if capability < LEAST_CAPABILITY:
        least = ".".join(map(str, LEAST_CAPABILITY))
        return f"this GPU has compute capability {capability[0]}.{capability[1]}, below {least}"
    return None


def check_decoder_widths(config: VideoMllamaConfig, tensor: int) -> None:
    """Refuses a decoder whose matrices fp8 products do not take.

    Raises:
        InputError: a width on one tensor-parallel rank that is no multiple of `MULTIPLE`.
    """
    text = config.text
    widths = {
        "text.hidden_size": text.hidden_size,
        "text.hidden_size / parallel.tensor": text.hidden_size // tensor,
        "text.intermediate_size / parallel.tensor": text.intermediate_size // tensor,
        "the width of text.num_key_value_heads / parallel.tensor": text.num_key_value_heads * text.head_dim // tensor,
    }
    _check_widths("precision.fp8", widths)


def check_tower_widths(config: VideoMllamaConfig) -> None:
    """Refuses a tower whose matrices fp8 products do not take.

    Raises:
        InputError: a width that is no multiple of `MULTIPLE`.
    """
    vision = config.vision
    widths = {"vision.hidden_size": vision.hidden_size, "vision.intermediate_size": vision.intermediate_size}
    _check_widths("precision.fp8_vision", widths)


def _check_widths(field: str, widths: dict[str, int]) -> None:
    for name, width in widths.items():
        if width % MULTIPLE:
            raise InputError(f"{field} is on, but {name} is {width}, not a multiple of {MULTIPLE}; switch {field} off")


def check_rows(rows: int, ranks: int = 1) -> None:
    """Refuses a micro-batch whose rows fp8 products do not take.

    Args:
        rows: of the whole micro-batch.
        ranks: among which sequence parallelism and context parallelism spread them.

    Raises:
        InputError: rows that are no multiple of `MULTIPLE` on every rank.
    """
    if rows % (MULTIPLE * ranks):
        raise InputError(
            f"precision.fp8 takes micro-batches of a multiple of {MULTIPLE * ranks} rows, not {rows}; "
            f"change stage.sequence_length to {-(-rows // (MULTIPLE * ranks)) * MULTIPLE * ranks}"
        )


def pad_rows(x: Tensor) -> Tensor:
    """[..., width] -> [rows, width], zero rows added up to a multiple of `MULTIPLE`: they change no scale and no product."""
    flat = x.reshape(-1, x.shape[-1])
    missing = -flat.shape[0] % MULTIPLE
    return F.pad(flat, (0, 0, 0, missing)) if missing else flat


@contextmanager
def full_precision() -> Iterator[None]:
    """Transformer Engine's modules compute in their parameters' dtype here, also inside an fp8 scope."""
    import transformer_engine.pytorch as te

    with te.autocast(enabled=False):
        yield


@contextmanager
def current_scaling() -> Iterator[None]:
    """Transformer Engine's modules compute in fp8 here, with scales from the tensors at hand: equal inputs, equal outputs.

    The format is hybrid: 4 exponent bits forward, 5 for gradients.
    """
    import transformer_engine.pytorch as te
    from transformer_engine.common.recipe import Float8CurrentScaling, Format
    from transformer_engine.pytorch.quantization import FP8GlobalStateManager

    # Leaving an outermost fp8 scope, or going back through its first module, moves on the history of modules under delayed
    # scaling, which are others than the ones called here. So: never be the outermost fp8 scope, and take the first-module mark.
    recipe = Float8CurrentScaling(fp8_format=Format.HYBRID)
    with te.autocast(enabled=False), te.autocast(enabled=True, recipe=recipe):
        FP8GlobalStateManager.is_first_fp8_module()
        yield
