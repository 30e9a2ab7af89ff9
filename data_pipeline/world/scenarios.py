"""Held-out evaluation: streams to narrate and clips to ask about, as scenario lines beside their mp4 files."""

from __future__ import annotations

from typing import Any

from data_pipeline.world import scene
from data_pipeline.world.render import render
from data_pipeline.world.tasks.questions import questions
from data_pipeline.world.tasks.realtime import draw_prompt, scenario
from data_pipeline.world.video import encode_mp4

PROMPTED = 4
"""Every fourth stream has a prompt."""


def build_scenario(task: str, first: int, index: int) -> tuple[dict[str, Any], bytes]:
    """(scenario as plain values, mp4) number `index` of task `stream` or `ask`; a question clip is not streamed."""
    seed = first + index
    name = f"{task}-{seed}"
    if task == "ask":
        clip, direction = scene.moving(seed)
        values = scenario(clip, None, name, f"videos/{name}.mp4", questions(clip, direction))
    else:
        clip = scene.eventful(seed)
        prompt = draw_prompt(clip, share=1.0) if index % PROMPTED == PROMPTED - 1 else None
        values = scenario(clip, prompt, name, f"videos/{name}.mp4")
    return values, encode_mp4(render(clip))


def build_scenarios(task: str, first: int, count: int, chunk: int, start: int) -> list[tuple[dict[str, Any], bytes]]:
    """Scenarios `start` to `start + chunk - 1`, as far as there are `count`."""
    return [build_scenario(task, first, i) for i in range(start, min(count, start + chunk))]
