"""Evaluation folders of rules instead of models, written as `moss eval` writes them."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from inference.evaluation.baselines import run_baseline
from inference.evaluation.folder import Provenance, manifest_path, write_folder
from inference.evaluation.schema import Change, PromptEvent, Question, Scenario, Span, Trace, TraceEvent
from inference.evaluation.storage import load_scenarios, save_scenarios, write_lines

FRAMES = 4


def write_scenarios(folder: Path, many: int = 6) -> Path:
    """Streams of four tiny frames with one span each, every second one with a question, and half of them with behaviours."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for number in range(many):
        frames = [f"s{number}-{frame}.png" for frame in range(FRAMES)]
        for frame, name in enumerate(frames):
            Image.new("RGB", (12, 6), (40 * frame, 20 * number, 90)).save(folder / name)
        found.append(
            Scenario(
                id=f"s{number}",
                fps=1.0,
                num_frames=FRAMES,
                frames=frames,
                prompts=[PromptEvent(t=0.5, text="Say <what> you see.")] if number % 2 else [],
                spans=[Span(a=2.0, b=2.0, text="a fence appears.", kind="event")],
                changes=[Change(t=2.0, before="no fence", after="a fence")] if number == 1 else [],
                questions=[Question(text="Which colour?", answer="blue" if number < 4 else "red", kind="colour")],
                license="CC0",
                meta={"behaviours": ["narration" if number < 3 else "alert"]},
            )
        )
    path = folder / "scenarios.jsonl"
    save_scenarios(path, found)
    manifest = {
        "suite": "world",
        "release": "v0",
        "prompts": {"ask": "Say <it>."},
        "prompts_sha256": "ab12",
        "fps": 1.0,
        "max_frames": 4,
    }
    manifest |= {"license": "CC0", "missing_videos": ["lost.mp4"], "notes": ["made up"]}
    write_lines(manifest_path(path), [json.dumps(manifest)])
    return path


def always_right(scenarios: list[Scenario]) -> list[Trace]:
    """Says each span's text in its first frame, and answers all questions."""
    traces = []
    for scenario in scenarios:
        events = [TraceEvent(t=float(frame), kind="frame_in", frame=frame) for frame in range(scenario.num_frames)]
        for span in scenario.spans:
            events.append(TraceEvent(t=span.a, kind="token", frame=int(span.a), token=7, text=span.text))
            events.append(TraceEvent(t=span.a + 0.5, kind="silence", frame=int(span.a), token=1))
        events.sort(key=lambda event: event.t)
        details = {"checkpoint": "hf/right", "tokens_per_frame": 16}
        used = {"frames": scenario.num_frames, "visual_tokens": 101 * scenario.num_frames}
        traces.append(Trace(scenario_id=scenario.id, mode="push", events=events, engine=details, usage=used))
        answers = [question.answer for question in scenario.questions]
        traces.append(Trace(scenario_id=scenario.id, mode="offline", answers=answers, engine=details))
    return traces


def write_evaluations(folder: Path, many: int = 6) -> dict[str, Path]:
    """`right`, which has the baseline `class_prior` inside, and `silent`, one of whose runs ended early; and their scenarios."""
    path = write_scenarios(folder / "data", many)
    scenarios = load_scenarios(path)
    right, silent = folder / "right", folder / "silent"
    provenance = Provenance(command=["moss", "eval", "x y.jsonl"], settings={"tokens_per_frame": 16}, files=[path], seconds=1.5)
    write_folder(right, always_right(scenarios), scenarios, provenance, None)
    quiet = run_baseline("always_silent", scenarios)
    quiet[0].error = "the video ends at 3 s"
    for trace in quiet:
        trace.engine = {"checkpoint": "hf/silent"}
    write_folder(silent, quiet, scenarios, Provenance(files=[path]), None)
    write_folder(right / "class_prior", run_baseline("class_prior", scenarios), scenarios, Provenance(files=[path]), None)
    return {"right": right, "silent": silent, "scenarios": path}
