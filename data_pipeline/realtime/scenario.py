"""The twin of a dialogue for evaluation: what somebody who watches the same video live has to say, and when."""

from __future__ import annotations

from typing import Any

from data_pipeline.realtime.dialogue import Dialogue


def to_scenario(
    dialogue: Dialogue, video: str, num_frames: int, *, identity: str = "", questions: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """One line of a scenario file, in the plain values of the schema of streaming evaluation.

    There is a span for every utterance, whatever a rate of speech made of it: from `t` to `t + tolerance`, with its kind and
    the prompt that it answers. `meta.spans` says of each span what it rests on and what it corrects.

    Args:
        video: path relative to the scenario file.
        num_frames: that are pushed, at `dialogue.fps`.
        identity: the scenario's; empty takes the dialogue's.
        questions: offline ones about the clip, as the schema has them.
    """
    spans = []
    details = []
    for utterance in dialogue.utterances:
        span: dict[str, Any] = {
            "a": utterance.t,
            "b": utterance.t + utterance.tolerance,
            "text": utterance.text,
            "kind": utterance.kind,
        }
        if utterance.answers is not None:
            span["prompt"] = utterance.answers
        spans.append(span)
        detail: dict[str, Any] = {"evidence": list(utterance.evidence)}
        if utterance.corrects is not None:
            detail["corrects"] = utterance.corrects
        details.append(detail)
    return {
        "id": identity or dialogue.id,
        "video": video,
        "fps": dialogue.fps,
        "num_frames": num_frames,
        "prompts": [{"t": user.t, "text": user.text} for user in dialogue.users],
        "spans": spans,
        "questions": questions or [],
        "system": dialogue.system,
        "source": dialogue.source,
        "license": dialogue.license,
        "meta": {
            "behaviours": list(dialogue.behaviours),
            "language": dialogue.language,
            "dialogue": dialogue.id,
            "prompt_behaviours": [user.behaviour for user in dialogue.users],
            "spans": details,
        },
    }
