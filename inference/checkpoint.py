"""Where a checkpoint comes from, and whether it fits the command."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import torch

from model.errors import InputError

REALTIME_STAGE = "sft_realtime"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_HUB_ID = re.compile(r"(?:(hf|modelscope):)?([\w.-]+/[\w.-]+)")


def resolve_checkpoint(name: str) -> Path:
    """A folder as it is; otherwise an id `owner/name`, fetched where a network is.

    `modelscope:owner/name` fetches from ModelScope, `hf:owner/name` or `owner/name` from Hugging Face.

    Raises:
        InputError: neither a folder nor an id, the hub's package is missing, or the download failed.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder
    match = _HUB_ID.fullmatch(name)
    if match is None:
        raise InputError(f"checkpoint {name} is neither a folder nor an id of the form owner/name; check the path")
    hub, identity = match.group(1) or "hf", match.group(2)
    package = "huggingface_hub" if hub == "hf" else "modelscope"
    try:
        if hub == "hf":
            from huggingface_hub import snapshot_download
        else:
            from modelscope import snapshot_download  # type: ignore[no-redef]
    except ImportError as error:
        raise InputError(
            f"checkpoint {name} is not a folder here, and fetching it needs the package {package}: install it, or give a folder"
        ) from error
    try:
        return Path(snapshot_download(identity))
    except Exception as error:  # the hubs raise many kinds of network and access errors
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"checkpoint {identity} could not be fetched from {package} ({reason}); give a folder") from error


def require_realtime(folder: Path, details: dict[str, Any]) -> None:
    """Refuse a checkpoint whose training did not end with real-time dialogues.

    Args:
        folder: for the message.
        details: the `moss_train` section of config.json; empty for a foreign checkpoint, which is only warned about.

    Raises:
        InputError: the stage is known and is another one.
    """
    stage = details.get("stage")
    if stage is None:
        print(f"warning: {folder} does not say how it was trained; speaking and silence may be meaningless", file=sys.stderr)
    elif stage != REALTIME_STAGE:
        raise InputError(
            f"{folder} was trained up to stage {stage}, which never learned when to be silent; "
            f"stream a checkpoint of stage {REALTIME_STAGE}, or ask this one with `python -m inference.offline_infer`"
        )


def dtype_of(name: str) -> torch.dtype:
    """The torch dtype called fp32, bf16 or fp16.

    Raises:
        InputError: another name.
    """
    if name not in DTYPES:
        raise InputError(f"dtype is {name!r}; use one of {', '.join(DTYPES)}")
    return DTYPES[name]


def check_device(name: str) -> str:
    """`name`, or an InputError when this machine has no such device; `auto` takes the GPU where there is one.

    A GPU that is named by its number becomes the current one: Triton launches there, wherever its tensors are.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device is {name!r}; use cpu, cuda, cuda:N or auto") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device is {name!r}; use cpu, cuda, cuda:N or auto")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device is {name!r} but torch sees no CUDA device; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device is {name!r} but torch sees {torch.cuda.device_count()} CUDA devices; use a lower number")
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return name
