"""Frame strips: which frame a token belongs to, what was true, and the verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from moss_train.report.strips import build_strip, spoken_by_frame, truth_by_frame


def token(frame: int | None, text: str) -> dict[str, Any]:
    return {"t": 0.0, "kind": "token", "frame": frame, "text": text}


def scenario(**changes: Any) -> dict[str, Any]:
    spans = [{"a": 1.0, "b": 1.0, "text": "red ball appears."}, {"a": 3.0, "b": 3.0, "text": "ball leaves."}]
    return {"id": "clip", "video": "clip.mp4", "fps": 1.0, "num_frames": 5, "spans": spans, "prompts": [], **changes}


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A real H.264 file of 5 frames, one a second, each of another grey."""
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=1)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for value in range(5):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 40 * value, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return tmp_path


def test_tokens_are_gathered_under_the_newest_frame_that_was_seen() -> None:
    events = [
        token(None, "lost"),
        token(1, " red"),
        token(1, " ball"),
        token(4, "x"),
        {"kind": "silence", "frame": 2},
        token(9, "late"),
    ]
    assert spoken_by_frame({"events": events}, 5) == ["", "red ball", "", "", "x"]


def test_truth_stands_under_the_frame_where_its_span_begins() -> None:
    assert truth_by_frame(scenario(fps=2.0, num_frames=8)) == ["", "", "red ball appears.", "", "", "", "ball leaves.", ""]


def test_a_strip_tells_hits_misses_and_needless_words(clip: Path) -> None:
    events = [token(1, "red ball appears."), token(2, "what?")]
    strip = build_strip(scenario(), {"events": events}, clip)
    assert [slot.verdict for slot in strip.slots] == ["quiet", "hit", "false", "missed", "quiet"]
    assert len({slot.image for slot in strip.slots}) == 5  # each slot shows its own frame
    wrong = build_strip(scenario(), {"events": [token(3, "ball stays.")]}, clip)
    assert wrong.slots[3].verdict == "wrong"


def test_a_clip_without_truth_gets_no_verdict_but_its_source(clip: Path) -> None:
    shown = scenario(source="Someone", license="CC0-1.0", meta={"split": "train"})
    strip = build_strip(shown, {"events": [token(0, "hello")]}, clip, with_truth=False)
    assert [slot.verdict for slot in strip.slots] == ["said", "", "", "", ""]
    assert all(slot.truth == "" for slot in strip.slots)
    assert strip.note == "Someone; CC0-1.0; part of the training data"
