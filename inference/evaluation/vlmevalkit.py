"""A model class in the form of VLMEvalKit, and its registration there. VLMEvalKit is no dependency: it is installed from source.

Messages have the form that VLMEvalKit's `BaseModel` documents: a list of {"type": "text" | "image" | "video", "value": ...},
where an item may have a `role` (system, user, assistant), and for a chat a list of {"role": ..., "content": such a list}.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any

from inference.evaluation.harness.media import Sampling, clip_of
from inference.evaluation.harness.model import HarnessModel
from inference.evaluation.harness.question import Decoding, Piece, Question, Turn
from inference.evaluation.harness.settings import HarnessSettings
from model.errors import InputError

NAME = "MOSS-Video"


class MossVideo:
    """A checkpoint that answers VLMEvalKit's messages.

    VLMEvalKit overwrites `nframe` and `fps` with what a video data set asks for, and empties the other of the two; it does so
    only for a model that has both, which is why both are here from the beginning.

    Args:
        model_path: the checkpoint.
        arguments: fields of `HarnessSettings`.

    Raises:
        InputError: an argument is wrong, or the checkpoint cannot be loaded.
    """

    INSTALL_REQ = False
    INTERLEAVE = True
    VIDEO_LLM = True
    allowed_types: Sequence[str] = ("text", "image", "video")
    is_api = False

    def __init__(self, model_path: str, **arguments: Any) -> None:
        super().__init__()
        self.settings = HarnessSettings.read({"checkpoint": model_path, **arguments})
        self._model = HarnessModel(self.settings)
        self._own = self._model.sampling
        self.nframe: int | None = self._own.max_frames
        self.fps: float | None = self._own.fps

    def use_custom_prompt(self, dataset: str) -> bool:
        """False: the data set's own prompt is used."""
        return False

    def generate_inner(self, message: Sequence[Mapping[str, Any]], dataset: str | None = None) -> str:
        """The answer to one message.

        Args:
            message: text, pictures and videos in the order in which they are read.
            dataset: its name, which changes nothing.

        Raises:
            InputError: an item of another type, or media that cannot be read.
        """
        runs = groupby(message, key=lambda item: str(item.get("role") or "user"))
        return self._answer([Turn(role, tuple(_piece(item) for item in items)) for role, items in runs])

    def chat_inner(self, message: Sequence[Mapping[str, Any]], dataset: str | None = None) -> str:
        """The answer to a conversation that ends with the user's turn.

        Args:
            message: {"role": ..., "content": items as of `generate_inner`} for each turn.
            dataset: its name, which changes nothing.

        Raises:
            InputError: as `generate_inner`, or roles that do not alternate.
        """
        return self._answer([Turn(str(turn["role"]), tuple(_piece(item) for item in turn["content"])) for turn in message])

    def _answer(self, turns: Sequence[Turn]) -> str:
        self._model.sampling = self._sampling()
        question = Question(tuple(turns), Decoding(max_new_tokens=self.settings.max_new_tokens))
        return self._model.answer([lambda: question])[0].text

    def _sampling(self) -> Sampling:
        """With `nframe` alone exactly so many frames, evenly spaced; with `fps` alone that rate; else as the settings have it."""
        if self.nframe and not self.fps:
            return dataclasses.replace(self._own, min_frames=self.nframe, max_frames=self.nframe)
        if self.fps and not self.nframe:
            return dataclasses.replace(self._own, fps=self.fps)
        return self._own


def _piece(item: Mapping[str, Any]) -> Piece:
    kind, value = item.get("type"), item.get("value")
    if kind == "text":
        return str(value)
    if kind not in ("image", "video") or value is None:
        raise InputError(f"a message has an item of type {kind!r} with value {value!r}; use text, image or video with its path")
    return clip_of({"type": kind, "url": value})


def register(name: str = NAME, **arguments: Any) -> None:
    """Makes the checkpoint known to VLMEvalKit in this process: its `--model NAME` finds it then.

    Args:
        name: what VLMEvalKit calls it.
        arguments: those of `MossVideo`; they are checked when VLMEvalKit makes the model.

    Raises:
        InputError: VLMEvalKit is not installed.
    """
    try:
        from vlmeval.config import supported_VLM
        from vlmeval.vlm.base import BaseModel
    except ImportError as error:
        raise InputError(
            f"VLMEvalKit is not installed here ({error}); clone github.com/open-compass/VLMEvalKit and pip install -e it"
        ) from error
    supported_VLM[name] = partial(type("MossVideo", (MossVideo, BaseModel), {}), **arguments)
