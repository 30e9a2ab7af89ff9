"""Polls: the same question again and again, each time of the clip that ends at that moment, until the model says yes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

from data_pipeline.text.tokenizer import Tokenizer
from inference.engine import StepEngine, Stepping
from inference.evaluation.running.clips import clip_frames, poll_moments
from inference.evaluation.running.frames import EncodedFrames
from inference.evaluation.running.offline import check_length, usage_of
from inference.evaluation.running.prompts import clip_rows
from inference.evaluation.running.settings import RunSettings
from inference.evaluation.running.trunk import Trunk, head_of
from inference.evaluation.schema import PollReply, PollRound, Scenario, Trace
from inference.evaluation.scorers.questions import normalise
from inference.offline import Answerer
from inference.serving.forks import together


@dataclass(frozen=True)
class Moment:
    """One time at which something is asked."""

    t: float
    frames: range | list[int]
    polls: list[int] = field(default_factory=list)


def plan_polls(scenario: Scenario, tokenizer: Tokenizer, settings: RunSettings, positions: int) -> list[Moment]:
    """All moments of all polls in the order of time; asking may end earlier.

    Raises:
        InputError: a text holds a marker of frames, or a clip needs more positions than the model has.
    """
    by_time: dict[float, list[int]] = {}
    for number, poll in enumerate(scenario.polls):
        for t in poll_moments(poll.begin, poll.end, poll.step):
            by_time.setdefault(t, []).append(number)
    moments = [Moment(t, clip_frames(scenario, t, None, settings), polls) for t, polls in sorted(by_time.items())]
    for moment in moments:
        for number in moment.polls:
            poll = scenario.polls[number]
            for text in filter(None, (poll.text, poll.then)):
                rows = clip_rows(scenario, [], text, len(moment.frames), tokenizer)
                check_length(scenario, f"polls[{number}] at {moment.t:g} s", len(rows), settings, positions)
    return moments


def says(reply: str, word: str) -> bool:
    """Whether the first word of a reply is `word`, in any case and without punctuation."""
    return normalise(reply).split(" ")[0] == normalise(word)


class _Asking:
    """Asks about one clip after the other."""

    def __init__(
        self, engine: StepEngine, tokenizer: Tokenizer, scenario: Scenario, bank: EncodedFrames, settings: RunSettings
    ) -> None:
        self._engine, self._tokenizer, self._scenario, self._bank = engine, tokenizer, scenario, bank
        self._answerer = Answerer(engine, tokenizer, sampling=settings.sampling, max_new_tokens=settings.max_answer_tokens)
        self._trunk: Trunk | None = None
        self.frames, self.text_tokens = 0, 0

    def ask(self, frames: range | list[int], texts: Sequence[str]) -> Stepping[list[str]]:
        """Replies to several questions about one clip."""
        prompts = [clip_rows(self._scenario, [], text, len(frames), self._tokenizer) for text in texts]
        trunk = self._trunk_for(frames, prompts[0])
        caches = []
        for _ in prompts:
            caches.append((yield from trunk.fork(frames)))
        fed = len(head_of(prompts[0], self._engine.image_id)) + len(frames)
        replies = yield from together(
            [self._answerer.decode(cache, rows, fed) for cache, rows in zip(caches, prompts, strict=True)]
        )
        self.frames += len(frames) * len(prompts)
        self.text_tokens += sum(map(len, prompts)) - len(frames) * len(prompts)
        return [self._tokenizer.decode(reply, skip_special=True).strip() for reply in replies]

    def release(self) -> None:
        if self._trunk is not None:
            self._trunk.release()

    def _trunk_for(self, frames: range | list[int], rows: Sequence[int]) -> Trunk:
        """The one that grows with the scenario where the clip is its beginning, otherwise a new one."""
        if isinstance(frames, range) and frames.start == 0 and self._trunk is not None:
            return self._trunk
        self.release()
        features = functools.partial(self._bank.get, self._scenario)
        self._trunk = Trunk(self._engine, features, head_of(rows, self._engine.image_id))
        return self._trunk


def poll_stepping(
    engine: StepEngine,
    tokenizer: Tokenizer,
    scenario: Scenario,
    moments: Sequence[Moment],
    bank: EncodedFrames,
    settings: RunSettings,
) -> Stepping[Trace]:
    """Asks at every moment those polls that have not ended; features of the frames must be in the bank."""
    rounds = [PollRound(poll=number) for number in range(len(scenario.polls))]
    trace = Trace(scenario_id=scenario.id, mode="poll", polls=rounds)
    asking = _Asking(engine, tokenizer, scenario, bank, settings)
    for moment in moments:
        active = [number for number in moment.polls if not rounds[number].stopped]
        if not active:
            continue
        replies = yield from asking.ask(moment.frames, [scenario.polls[number].text for number in active])
        stopped = []
        for number, reply in zip(active, replies, strict=True):
            poll = scenario.polls[number]
            rounds[number].replies.append(PollReply(t=moment.t, text=reply))
            if poll.stop and says(reply, poll.stop):
                rounds[number].stopped = True
                stopped += [number] if poll.then else []
        if stopped:
            finals = yield from asking.ask(moment.frames, [scenario.polls[number].then for number in stopped])
            for number, reply in zip(stopped, finals, strict=True):
                rounds[number].final = reply
    asking.release()
    distinct = len({number for moment in moments for number in moment.frames})
    trace.usage = usage_of(engine, asking.frames, asking.text_tokens, distinct)
    return trace
