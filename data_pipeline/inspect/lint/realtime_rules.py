"""Timed dialogues: the grid of their frames, the grammar of their stream, and, where it is known, what they were made from."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence

from data_pipeline.inspect.lint.text_rules import Found
from data_pipeline.realtime.emission import CountTokens
from data_pipeline.realtime.grammar import FRAME, OPENED, StreamFault, check_messages
from data_pipeline.realtime.rules import CheckOptions, check_dialogue
from data_pipeline.realtime.rules.stream import Rendered, read_back
from data_pipeline.realtime.rules.texts import leaked_time
from data_pipeline.realtime.values import dialogue_from_dict
from data_pipeline.schema import Message, Sample
from data_pipeline.text.tokenizer import VIDEO, Tokenizer
from model.errors import InputError

EVEN = 2e-3
"""Seconds by which the steps of one grid may differ; times are often stored in whole milliseconds."""
_GAP = re.compile(rf"{re.escape(VIDEO)}\s*(?={re.escape(VIDEO)}|\Z)")


def realtime_findings(sample: Sample, tokenizer: Tokenizer | None = None) -> Found:
    """Faults and oddities of a timed dialogue, an imported one or a generated one.

    Args:
        tokenizer: counts the tokens of slots, where `meta.dialogue` says what was to be said when; without one they are not
            checked.
    """
    if sample.kind != "realtime":
        return
    yield from _grid_findings(sample)
    for index, message in enumerate(sample.messages):
        gaps = len(_GAP.findall(message.content)) if message.role == "assistant" else 0
        if gaps:
            yield "realtime-gap", f"messages[{index}] has {gaps} such frames"
    yield from _grammar_findings(sample.messages)
    yield from _word_findings(sample.messages)
    if "dialogue" in sample.meta:
        yield from _dialogue_findings(sample, tokenizer)


def _grid_findings(sample: Sample) -> Found:
    for index, media in enumerate(sample.media):
        if media.type == "video" and media.markers != "per_frame":
            yield "realtime-markers", f"media[{index}].markers is {media.markers}"
        times = media.frame_times or [] if media.markers == "per_frame" else []
        step = times[1] - times[0] if len(times) > 1 else 0.0
        steps = round(times[0] / step) if step > EVEN else 0  # a window of a long video begins on the grid of all of it
        if times and abs(times[0] - steps * step) > EVEN * max(1, steps):
            yield "realtime-grid", f"media[{index}].frame_times[0] is {times[0]:g}, no multiple of the step of {step:g}"
        pairs = enumerate(itertools.pairwise(times), start=1)
        off = next((i for i, (a, b) in pairs if abs(b - a - step) > EVEN), None)
        if off is not None:
            yield "realtime-grid", f"media[{index}].frame_times[{off}] is {times[off]:g} instead of {times[off - 1] + step:g}"


def _grammar_findings(messages: Sequence[Message]) -> Found:
    """What no profile takes is an error; a turn that begins without silence is what the reference's own rows do."""
    faults = check_messages(messages, "lenient")
    for fault in faults:
        if not _is_gap(fault):
            yield "realtime-grammar", str(fault)
    starts = Counter(f.found.split()[0] for f in check_messages(messages) if f.state == OPENED and f not in faults)
    if starts:
        told = ", ".join(f"{count} with {what}" for what, count in sorted(starts.items()))
        yield "realtime-start", f"turns begin {told}"


def _is_gap(fault: StreamFault) -> bool:
    return fault.state == FRAME and fault.found in ("frame", "end")


def _word_findings(messages: Sequence[Message]) -> Found:
    for index, message in enumerate(messages):
        leak = leaked_time(message.content.replace(VIDEO, "")) if message.role == "assistant" else None
        if leak:
            yield "realtime-leak", f"messages[{index}] says {leak!r}"
    said = _utterances(read_back(messages))
    for before, after in itertools.pairwise(said):
        if before and before == after:
            yield "realtime-repeat", f"{after[:60]!r} is said twice on end"


def _utterances(stream: Rendered) -> list[str]:
    """Texts between silences; an empty one stands where the user spoke."""
    said, text = [""], ""
    turns = {frames for frames, _ in stream.asked}
    for frame, heard in enumerate(stream.slots):
        if frame in turns:
            said, text = [*said, text.strip(), ""], ""
        text += heard.text
        if heard.silences and text:
            said, text = [*said, text.strip()], ""
    return [*said, text.strip()]


def _dialogue_findings(sample: Sample, tokenizer: Tokenizer | None) -> Found:
    try:
        dialogue = dialogue_from_dict(sample.meta["dialogue"], "meta.dialogue")
    except InputError as error:
        yield "realtime-dialogue", str(error)
        return
    count: CountTokens | None = None
    if tokenizer is not None:
        read = tokenizer

        def count(text: str) -> int:
            return len(read.encode(text))

    shown = next((media.frame_times for media in sample.media if media.type == "video"), None)
    if shown is not None and list(dialogue.frame_times) != list(shown):
        yield "realtime-dialogue", "meta.dialogue has other frame_timestamps than the clip's frame_times"
    options = CheckOptions(tokenizer=tokenizer, max_wait=math.inf)  # how long one may wait is settled where it was made
    for fault in check_dialogue(dialogue, count, options, sample.messages):
        if fault.rule != "grammar":  # told above
            yield "realtime-dialogue", str(fault)
