"""Default system prompts, and a user's own from a JSON file."""

from __future__ import annotations

import json
from pathlib import Path

from model.errors import InputError

_THINKING = (
    " Before you answer, think it through step by step between <thinking> and </thinking>; "
    "then give the answer alone between <answer> and </answer>."
)
_VIDEO = "You are given frames of a video in the order in which they were taken. Answer the user's request from them."
_TEXT_IMAGE = "You are a helpful assistant. Answer the user's request, from the picture where there is one."

DEFAULT_PROMPTS = {
    "none": "",
    "realtime": (
        "You watch a live video, one frame a second, and talk with the user about it. "
        "Speak only about what the frames have shown so far. Speak up when something the user cares about changes, "
        "correct yourself when the picture proves you wrong, and answer with <|silence|> while there is nothing to say."
    ),
    "video": _VIDEO,
    "text_image": _TEXT_IMAGE,
    "video_thinking": _VIDEO + _THINKING,
    "text_image_thinking": _TEXT_IMAGE + _THINKING,
}
"""Name -> text; `none` is for models trained without a system message."""


def system_prompt(name: str, path: str | None = None) -> str:
    """The system text called `name`.

    Args:
        name: a key of `DEFAULT_PROMPTS`, or of the file.
        path: JSON file of an object name -> text that takes the place of the defaults.

    Raises:
        InputError: unknown name, or a file that is missing or not such an object.
    """
    prompts = DEFAULT_PROMPTS if path is None else _read(Path(path))
    if name not in prompts:
        raise InputError(f"system prompt {name!r} is not known; use one of {', '.join(sorted(prompts))}")
    return prompts[name]


def _read(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise InputError(f"file of system prompts {path} does not exist")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"file of system prompts {path} is not JSON: {error}") from None
    if not isinstance(content, dict) or not all(isinstance(v, str) for v in content.values()):
        raise InputError(f"file of system prompts {path} must be one JSON object from names to texts")
    return content
