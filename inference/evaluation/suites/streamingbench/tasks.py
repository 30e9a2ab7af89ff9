"""Tasks of StreamingBench under the names of both of its releases, and the three groups of its table."""

from __future__ import annotations

import re

PROACTIVE = "proactive_output"
SEQUENTIAL = "sequential_question_answering"

GROUPS = {
    "realtime": (
        "object_perception",
        "causal_reasoning",
        "clips_summarize",
        "attribute_perception",
        "event_understanding",
        "text_rich_understanding",
        "prospective_reasoning",
        "spatial_understanding",
        "action_perception",
        "counting",
    ),
    "omni": ("emotion_recognition", "scene_understanding", "source_discrimination", "multimodal_alignment"),
    "contextual": ("misleading_context_understanding", "anomaly_context_understanding", SEQUENTIAL, PROACTIVE),
}

_OTHER_NAMES = {
    "object_recognition": "object_perception",
    "attribute_recognition": "attribute_perception",
    "action_recognition": "action_perception",
    "misleading_context_recognition": "misleading_context_understanding",
    "clips_summarization": "clips_summarize",
}


def task_of(name: str) -> str:
    """Our name of a task, made of whichever name a release has for it."""
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    return _OTHER_NAMES.get(plain, plain)
