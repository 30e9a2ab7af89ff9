"""Serving requests with one step always under way: a session's next step is launched from the token that only the device knows.

Nothing is advanced for a step that was launched ahead: a session's counts, tables and sampler are those of what it has fed. If it
then feeds something else, or was changed meanwhile, the step is forgotten; its row lies behind the session's last and is
written again. So the tokens are those of serving one step after the other.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace

from inference.cache.allocator import OutOfPagesError
from inference.cache.session_cache import SessionCache
from inference.graphs.runner import MOST_SESSIONS, Feed, GraphRunner, Launch
from inference.model.rows import RowGroup
from inference.sampling import Sampler
from model.errors import InputError


@dataclass
class Wish:
    """What a session feeds, and whether it will most likely feed the token that it is answered, alone, next."""

    group: RowGroup
    sampler: Sampler
    ahead: bool


@dataclass
class _Answer:
    """Where a session's token will be."""

    launch: Launch
    index: int
    place: object
    """Of the session in the tables; its last sampled token is kept there."""

    def token(self) -> int:
        return self.launch.read.tokens()[self.index]


@dataclass
class _Ahead:
    """A step of one row that a session has not asked for yet."""

    answer: _Answer
    state: tuple[int, int, int, int]
    sampler: Sampler
    fed: int = -1
    """The token that it fed, once that was read."""
    sampler_state: tuple[int, int] = (-1, -1)
    """Of the sampler once it had accepted that token."""


class AheadServer:
    """Steps of many sessions through a `GraphRunner`.

    Args:
        runner: enqueues the steps.
    """

    def __init__(self, runner: GraphRunner) -> None:
        self.runner = runner
        self._steps: weakref.WeakKeyDictionary[SessionCache, _Ahead] = weakref.WeakKeyDictionary()
        self.launched, self.used = 0, 0
        """Steps launched ahead, and those of them whose token was wanted."""

    def forget(self, cache: SessionCache) -> None:
        """What was launched ahead for a session is not wanted: its rows will be written by other means."""
        self._steps.pop(cache, None)

    def serve(self, wishes: Sequence[Wish]) -> list[int | InputError]:
        """The token that follows each session's rows, accepted by its sampler; the error where none could be chosen.

        Raises:
            OutOfPagesError: the store is full; no session has changed.
            InputError: a sampler is of another vocabulary; no session has changed.
        """
        self.runner.check([wish.sampler for wish in wishes])
        found = [self._find(wish) for wish in wishes]
        for wish in wishes:
            wish.group.cache.reserve(len(wish.group.tokens), wish.group.new_frames)
        for wish in wishes:
            # A page that was shared with a fork may just have been copied: with the row that was launched ahead.
            self.forget(wish.group.cache)
        answers: list[_Answer | None] = []
        feeds: list[Feed] = []
        for wish, ahead in zip(wishes, found, strict=True):
            if ahead is not None and len(wish.group.tokens) == 1:
                wish.group.cache.advance(1)
                self.used += 1
                answers.append(ahead.answer)
            else:
                answers.append(None)
                feeds.append(Feed(wish.group if ahead is None else replace(wish.group, written=1), wish.sampler))
        placed = iter(self._launch(feeds, [(wish, answer) for wish, answer in zip(wishes, answers, strict=True) if answer]))
        final = [answer or next(placed) for answer in answers]
        self._launch([], [(wish, now) for wish, answer, now in zip(wishes, answers, final, strict=True) if answer is None])
        return [self._accept(wish, answer.token()) for wish, answer in zip(wishes, final, strict=True)]

    def _launch(self, feeds: Sequence[Feed], follow: Sequence[tuple[Wish, _Answer]]) -> list[_Answer]:
        """Enqueue feeds, and with them the next step of sessions whose last token, the answer, is under way.

        Returns:
            Of `feeds`.
        """
        following = [wish for wish, answer in follow if wish.ahead and self._can_follow(wish.group.cache, answer)]
        steps = [Feed(RowGroup(wish.group.cache, [0], [wish.group.cache.frames]), wish.sampler, True) for wish in following]
        # These first: they read their tokens at their places in the tables, which the feeds may take from them.
        every = [*steps, *feeds]
        answers: list[_Answer] = []
        for begin in range(0, len(every), MOST_SESSIONS):
            part = every[begin : begin + MOST_SESSIONS]
            launch = self.runner.launch(part)
            answers += [_Answer(launch, i, self.runner.tables.place(feed.group.cache)) for i, feed in enumerate(part)]
        for wish, answer in zip(following, answers, strict=False):
            self._steps[wish.group.cache] = _Ahead(answer, _state(wish.group.cache), wish.sampler)
        self.launched += len(following)
        return answers[len(steps) :]

    def _can_follow(self, cache: SessionCache, answer: _Answer) -> bool:
        """Whether a session's token is still where it was sampled to, and there is a page for its row."""
        if answer.place is not self.runner.tables.place(cache):
            return False
        try:
            cache.reserve(1, 0)
        except OutOfPagesError:
            return False
        return True

    def _find(self, wish: Wish) -> _Ahead | None:
        """The step that was launched ahead for a session, if it is what the session asks for now."""
        group, cache = wish.group, wish.group.cache
        ahead = self._steps.get(cache)
        if ahead is None or ahead.fed != group.tokens[0] or ahead.state != _state(cache):
            return None
        if ahead.answer.place is not self.runner.tables.place(cache):
            return None
        if len(group.tokens) == 1:
            same = wish.sampler is ahead.sampler and _sampler_state(wish.sampler) == ahead.sampler_state
            return ahead if same else None
        # With the reference's switches a row depends on the frames that come with the rows behind it.
        return ahead if not group.new_frames or self.runner.model.portions_freely else None

    def _accept(self, wish: Wish, token: int) -> int | InputError:
        answer = accepted(wish.sampler, token)
        ahead = self._steps.get(wish.group.cache)
        if ahead is not None:
            ahead.fed, ahead.sampler_state = token, _sampler_state(wish.sampler)
        return answer


def accepted(sampler: Sampler, token: int) -> int | InputError:
    """The token, accepted; or why there is none, which is the affair of this session alone."""
    try:
        sampler.accept(token)
    except InputError as error:
        return error
    return token


def _state(cache: SessionCache) -> tuple[int, int, int, int]:
    return cache.length, cache.frames, cache.next_position, cache.version


def _sampler_state(sampler: Sampler) -> tuple[int, int]:
    return sampler.accepted, sampler.version
