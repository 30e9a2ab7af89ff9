"""Frame strips: each pushed frame of a clip with what was said after it and what was true."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

JsonObject = dict[str, Any]


@dataclass
class Slot:
    """One frame of a strip."""

    time: float
    image: str
    """Data URI of the frame."""
    truth: str
    said: str
    verdict: str
    """hit | wrong | missed | false | quiet"""


@dataclass
class Strip:
    """One clip, frame by frame."""

    title: str
    slots: list[Slot]
    prompts: list[str]
    note: str = ""
    """Where the clip comes from and whether the model saw it in training."""


def _image_uri(frame: Any, width: int) -> str:
    """Data URI of an RGB array [H, W, 3] uint8, scaled to the given width with hard pixel edges."""
    from PIL import Image

    picture = Image.fromarray(frame)
    picture = picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def spoken_by_frame(trace: JsonObject, num_frames: int) -> list[str]:
    """What was said while frame i was the newest that the model saw, one string a frame."""
    said = [""] * num_frames
    for event in trace["events"]:
        frame = event.get("frame")
        if event["kind"] == "token" and frame is not None and 0 <= frame < num_frames:
            said[frame] += event.get("text", "")
    return [text.strip() for text in said]


def truth_by_frame(scenario: JsonObject) -> list[str]:
    """The text of the span that begins at each frame, '' where nothing does."""
    truth = [""] * int(scenario["num_frames"])
    for span in scenario.get("spans", []):
        index = round(float(span["a"]) * float(scenario["fps"]))
        if 0 <= index < len(truth):
            truth[index] = span["text"]
    return truth


def _verdict(truth: str, said: str) -> str:
    if truth and said:
        return "hit" if truth.strip(" .") == said.strip(" .") else "wrong"
    if truth:
        return "missed"
    return "false" if said else "quiet"


def build_strip(scenario: JsonObject, trace: JsonObject, folder: Path, *, with_truth: bool = True, width: int = 96) -> Strip:
    """Decode the scenario's clip and lay truth and speech beneath its frames.

    Args:
        folder: where the scenario file lies; `scenario["video"]` is relative to it.
        with_truth: False for clips without annotation: speech is shown without a verdict.
        width: of a thumbnail, in pixels.
    """
    from data_pipeline.media.decode import frames_at_times

    count, fps = int(scenario["num_frames"]), float(scenario["fps"])
    times = [index / fps for index in range(count)]
    frames = frames_at_times(folder / scenario["video"], times)
    said, truth = spoken_by_frame(trace, count), truth_by_frame(scenario)
    slots = [
        Slot(
            time=time,
            image=_image_uri(frame, width),
            truth=truth[index] if with_truth else "",
            said=said[index],
            verdict=_verdict(truth[index], said[index]) if with_truth else ("" if not said[index] else "said"),
        )
        for index, (time, frame) in enumerate(zip(times, frames, strict=False))
    ]
    prompts = [f"{prompt['t']:g} s: {prompt['text']}" for prompt in scenario.get("prompts", [])]
    return Strip(title=scenario["id"], slots=slots, prompts=prompts, note=_note(scenario))


def _note(scenario: JsonObject) -> str:
    """Source, licence and part in training of a clip, as far as the scenario tells."""
    part = {"train": "part of the training data", "test": "not in the training data"}.get(
        scenario.get("meta", {}).get("split", ""), ""
    )
    return "; ".join(text for text in (scenario.get("source", ""), scenario.get("license", ""), part) if text)
