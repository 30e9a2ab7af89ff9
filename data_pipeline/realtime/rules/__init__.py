"""Hard rules of dialogues: what breaks one is never written into a corpus.

`fault` is the table; `times`, `texts`, `links` and `stream` hold the checks by what they look at.
"""

from __future__ import annotations

from collections.abc import Sequence

from data_pipeline.realtime.dialogue import Dialogue
from data_pipeline.realtime.emission import CountTokens
from data_pipeline.realtime.layout import slots_of
from data_pipeline.realtime.render import to_messages
from data_pipeline.realtime.rules.fault import RULES, CheckOptions, Fault
from data_pipeline.realtime.rules.links import link_faults
from data_pipeline.realtime.rules.stream import frame_faults, stream_faults
from data_pipeline.realtime.rules.texts import text_faults
from data_pipeline.realtime.rules.times import layout_faults, time_faults
from data_pipeline.schema import Message
from model.errors import InputError

__all__ = ["RULES", "CheckOptions", "Fault", "check_dialogue"]


def check_dialogue(
    dialogue: Dialogue,
    count_tokens: CountTokens | None,
    options: CheckOptions = CheckOptions(),  # noqa: B008 - frozen
    messages: Sequence[Message] | None = None,
) -> list[Fault]:
    """All faults of a dialogue that is laid out, and of its rendering.

    Args:
        count_tokens: what it was laid out with; None leaves out what depends on it: slots, their silences and budgets. It
            needs `messages`.
        messages: a rendering that came from elsewhere, such as a stored one; None checks `render.to_messages`.

    Returns:
        Every broken rule, in the order of the table's groups; empty for a sound dialogue. The rendering is looked at only
        where times and layout are sound, since there is nothing to hold it against otherwise.
    """
    texts = list(text_faults(dialogue, options))
    times = list(time_faults(dialogue))
    if any(fault.rule == "frame-order" for fault in times):
        return texts + times
    laid_out = list(layout_faults(dialogue, options))
    faults = texts + times + list(link_faults(dialogue)) + laid_out
    blind = {"not-laid-out", "said", "off-grid", "overlap", "turn-order"} & {fault.rule for fault in times + laid_out}
    if blind or any(fault.rule == "round-trip" for fault in texts):
        return faults
    if count_tokens is None:
        return faults + list(frame_faults(dialogue, messages or [], options))
    try:
        slots = slots_of(dialogue, count_tokens)
        rendered = to_messages(dialogue, count_tokens) if messages is None else messages
    except InputError as error:
        return [*faults, Fault("span", f"dialogue {dialogue.id!r}", str(error))]
    return faults + list(stream_faults(dialogue, slots, rendered, count_tokens, options))
