"""Three small scenarios on the clips of `tests.moss_train.runs`, with a prompt, something to say, and a question each."""

from __future__ import annotations

import json
from pathlib import Path

from tests.inference.clips import write_clip

FRAMES = 4


def write_scenarios(folder: Path, lost: int | None = None) -> Path:
    """The scenario file and its videos.

    Args:
        lost: number of a scenario whose video ends before its last frames.
    """
    lines = []
    for number in range(3):
        levels = [10 + 60 * ((number + i) % FRAMES) for i in range(1 if number == lost else FRAMES)]
        write_clip(folder / f"clip_{number}.mp4", levels, size=32)
        lines.append(
            {
                "id": f"scenario_{number}",
                "video": f"clip_{number}.mp4",
                "fps": 1.0,
                "num_frames": FRAMES,
                "prompts": [{"t": 0.0, "text": "what colour is it?"}],
                "spans": [{"a": 1.0, "b": 1.0, "text": "it is red."}],
                "questions": [{"text": "what colour is it?", "answer": "it is red.", "kind": "colour"}],
            }
        )
    path = folder / "scenarios.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
