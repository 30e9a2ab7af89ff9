"""What a user can say about the model in a harness's model arguments."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import InputError

_NONE = ("none", "null", "")


@dataclass(frozen=True, kw_only=True)
class HarnessSettings:
    """The model arguments of a harness.

    Raises:
        InputError: a value out of range.
    """

    checkpoint: str
    """Folder in Hugging Face layout with its tokenizer.json, or a hub id."""
    device: str = "auto"
    dtype: str = "auto"
    precision: str | None = None
    """bf16, fp8, fp8_self; None: the dtype for all."""
    cross_kv: str = "bf16"
    vision: str = "exact"
    fps: float | None = None
    """Frames a second of videos; None: the checkpoint's, else 1."""
    min_frames: int | None = None
    """None: the checkpoint's, else 8."""
    max_frames: int | None = None
    """Of each video, or of each list of frames; None: the checkpoint's, else 16."""
    system: str | None = None
    """System text, a file that holds it, or none, video, text_image, realtime; None: the checkpoint's own."""
    max_new_tokens: int = 512
    """Of an answer where the task does not say it."""
    batch: int = 1
    """Clips that are answered in lockstep; all questions about one clip always are."""
    chunk: int = 64
    """Frames encoded at a time."""
    seed: int = 0
    """Of sampling, where a task asks for it."""
    broken: str = "raise"
    """What a question does that cannot be asked, such as one about a damaged video: raise, or empty for an empty answer."""

    def __post_init__(self) -> None:
        for name in ("min_frames", "max_frames", "max_new_tokens", "batch", "chunk"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"model argument {name} is {value}; it must be at least 1")
        if self.broken not in ("raise", "empty"):
            raise InputError(f"model argument broken is {self.broken!r}; use raise or empty")
        if self.fps is not None and not self.fps > 0:
            raise InputError(f"model argument fps is {self.fps:g}; it must be above 0")
        if self.min_frames is not None and self.max_frames is not None and self.min_frames > self.max_frames:
            raise InputError(f"model argument min_frames is {self.min_frames}, above max_frames {self.max_frames}; lower it")

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> HarnessSettings:
        """The settings in model arguments as a harness parsed them: numbers may be text, and `none` is the default.

        Args:
            given: names of fields; `pretrained` and `model_path` stand for the checkpoint, `batch_size` for the batch.

        Raises:
            InputError: an unknown name, a value of another kind, or no checkpoint.
        """
        values: dict[str, Any] = {}
        for name, value in given.items():
            field = _ALIASES.get(name, name)
            if field not in _KINDS:
                raise InputError(f"model argument {name} is unknown; use {', '.join(_KINDS)}")
            if value is None or (isinstance(value, str) and value.lower() in _NONE and field != "system"):
                continue
            if field in values:
                raise InputError(f"model argument {name} says again what {field} is; give it once")
            values[field] = _converted(name, value, _KINDS[field])
        if "checkpoint" not in values:
            raise InputError("model argument checkpoint is missing; give checkpoint=FOLDER")
        return cls(**values)

    def arguments(self) -> argparse.Namespace:
        """What `inference.commands.load_engine` reads."""
        return argparse.Namespace(
            checkpoint=self.checkpoint,
            device=self.device,
            dtype=self.dtype,
            precision=self.precision,
            cross_kv=self.cross_kv,
            vision=self.vision,
            near_duplicate=None,
        )

    def system_given(self) -> str | None:
        """The system text, or its name; read from a file where `system` is one."""
        if self.system is None or "\n" in self.system or len(self.system) > 250 or not Path(self.system).is_file():
            return self.system
        return Path(self.system).read_text(encoding="utf-8").strip()


_ALIASES = {"pretrained": "checkpoint", "model_path": "checkpoint", "batch_size": "batch"}
_KINDS: dict[str, type] = {
    field.name: float if "float" in str(field.type) else int if "int" in str(field.type) else str
    for field in dataclasses.fields(HarnessSettings)
}


def _converted(name: str, value: Any, kind: type) -> Any:
    if kind is str:
        return str(value)
    try:
        if isinstance(value, bool):
            raise ValueError
        number = float(value)
        if kind is int and number != int(number):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        what = "a whole number" if kind is int else "a number"
        raise InputError(f"model argument {name} is {value!r}; it must be {what}") from None
    return int(number) if kind is int else number
