"""Questions about clips of one scenario, all of them from frames that are encoded once."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from data_pipeline.text.tokenizer import Tokenizer
from inference.cache.session_cache import SessionCache
from inference.engine import StepEngine, Stepping
from inference.evaluation.running.clips import clip_frames
from inference.evaluation.running.frames import EncodedFrames
from inference.evaluation.running.prompts import dialogue_rows
from inference.evaluation.running.settings import RunSettings
from inference.evaluation.running.trunk import Trunk, head_of
from inference.evaluation.schema import Scenario, Trace
from inference.offline import MAX_FORKS, Answerer
from inference.serving.forks import together
from model.errors import InputError


@dataclass(frozen=True)
class Asked:
    """One question: the frames it is shown and its rows."""

    number: int
    frames: range | list[int]
    rows: list[int]

    @property
    def grows(self) -> bool:
        """Whether its frames are a beginning of the scenario: then others may go on from where it stands."""
        return isinstance(self.frames, range) and self.frames.start == 0


def plan_questions(scenario: Scenario, tokenizer: Tokenizer, settings: RunSettings, positions: int) -> list[Asked]:
    """Frames and rows of every question.

    Args:
        positions: that the model has.

    Raises:
        InputError: a text holds a marker of frames, or a question and its answer need more positions.
    """
    found = []
    for number, question in enumerate(scenario.questions):
        frames = clip_frames(scenario, question.t, question.since, settings)
        asked = Asked(number, frames, dialogue_rows(scenario, question, len(frames), tokenizer))
        check_length(scenario, f"questions[{number}]", len(asked.rows), settings, positions)
        found.append(asked)
    return found


def check_length(scenario: Scenario, what: str, rows: int, settings: RunSettings, positions: int) -> None:
    """Whether a prompt and its answer fit.

    Raises:
        InputError: they do not.
    """
    if rows + settings.max_answer_tokens > positions:
        raise InputError(
            f"scenario {scenario.id} {what} has {rows} rows and up to {settings.max_answer_tokens} of an answer, the model "
            f"{positions} positions; show it fewer frames with --max-frames or --context-seconds"
        )


def offline_stepping(
    engine: StepEngine,
    tokenizer: Tokenizer,
    scenario: Scenario,
    plan: Sequence[Asked],
    bank: EncodedFrames,
    settings: RunSettings,
) -> Stepping[Trace]:
    """Answers all questions; features of the frames must be in the bank."""
    answerer = Answerer(engine, tokenizer, sampling=settings.sampling, max_new_tokens=settings.max_answer_tokens)
    answers = [""] * len(scenario.questions)
    for family in _families(plan):
        if len(family) == 1:
            only = family[0]
            replies = [(yield from answerer.decode(engine.new_cache(), only.rows, features=bank.get(scenario, only.frames)))]
        else:
            replies = yield from _forked(engine, answerer, scenario, family, bank)
        for asked, reply in zip(family, replies, strict=True):
            answers[asked.number] = tokenizer.decode(reply, skip_special=True).strip()
    frames = sum(len(asked.frames) for asked in plan)
    distinct = len({number for asked in plan for number in asked.frames})
    usage = usage_of(engine, frames, sum(len(asked.rows) for asked in plan) - frames, distinct)
    return Trace(scenario_id=scenario.id, mode="offline", answers=answers, usage=usage)


def usage_of(engine: StepEngine, frames: int, text_tokens: int, distinct: int) -> dict[str, int]:
    """What a trace says of how much was shown: summed over all that was asked, and how many frames were encoded for it."""
    visual = frames * engine.model.config.vision.tokens_per_frame
    return {"frames": frames, "visual_tokens": visual, "text_tokens": text_tokens, "encoded_frames": distinct}


def _families(plan: Sequence[Asked]) -> Iterator[list[Asked]]:
    """Questions that share keys and values: all whose clips begin with the scenario, and those of the very same frames."""
    growing = sorted((asked for asked in plan if asked.grows), key=lambda asked: len(asked.frames))
    if growing:
        yield growing
    others = sorted((asked for asked in plan if not asked.grows), key=lambda asked: list(asked.frames))
    for _, members in groupby(others, key=lambda asked: list(asked.frames)):
        yield list(members)


def _forked(
    engine: StepEngine, answerer: Answerer, scenario: Scenario, family: Sequence[Asked], bank: EncodedFrames
) -> Stepping[list[list[int]]]:
    head = head_of(family[0].rows, engine.image_id)
    trunk = Trunk(engine, functools.partial(bank.get, scenario), head)
    replies: list[list[int]] = []
    for begin in range(0, len(family), MAX_FORKS):
        part = family[begin : begin + MAX_FORKS]
        caches: list[SessionCache] = []
        for asked in part:
            caches.append((yield from trunk.fork(asked.frames)))
        done = [len(head) + len(asked.frames) for asked in part]
        replies += yield from together(
            [answerer.decode(cache, asked.rows, fed) for cache, asked, fed in zip(caches, part, done, strict=True)]
        )
    trunk.release()
    return replies
