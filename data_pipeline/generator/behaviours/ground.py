"""What the planners look at: the whole video on the grid of its frames, with the draws and the words of one dialogue."""

from __future__ import annotations

import itertools
import random
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from data_pipeline.generator.behaviours.policy import matches, told
from data_pipeline.generator.behaviours.wording import Wording
from data_pipeline.generator.plan import Plan, Question
from data_pipeline.timeline.timeline import Change, GivenQuestion, Segment, Timeline

COUNT = "count"
SOME = 40
RESTLESS = ("place",)
"""Prefixes of subjects that change all the time: nobody should be told of every change where anything else can be asked for."""


@dataclass(frozen=True)
class Ground:
    """One video, to plan questions on. Frames are named by their index."""

    timeline: Timeline
    changes: Sequence[Change]
    times: Sequence[float]
    """Seconds of the frames, rising."""
    rng: random.Random
    wording: Wording
    unasked: float = 0.0
    """Share of the narrations that nobody asks for."""

    @property
    def last(self) -> int:
        """Index of the last frame."""
        return len(self.times) - 1

    def frame_of(self, t: float) -> int:
        """The first frame at or after a second; one more than the last where there is none."""
        return bisect_left(self.times, t)

    @cached_property
    def events(self) -> list[tuple[int, Segment]]:
        """What happens, with the frame that shows it first, in the order in which it becomes known."""
        found = [(self.frame_of(s.known_from), s) for s in self.timeline.segments if told(s)]
        return sorted((e for e in found if e[0] <= self.last), key=lambda e: e[1].known_from)

    @cached_property
    def some_events(self) -> list[tuple[int, Segment]]:
        """Some of them where there are many: what they have in common with all others is looked up one by one."""
        if len(self.events) <= SOME:
            return self.events
        return [self.events[i] for i in sorted(self.rng.sample(range(len(self.events)), SOME))]

    @cached_property
    def subjects(self) -> tuple[str, ...]:
        """Subjects of states."""
        return self.timeline.subjects()

    def stretches(self, subject: str) -> list[tuple[int, int, Segment]]:
        """(first frame that shows it, first frame that does not, state) for the states of a subject that any frame shows."""
        found = []
        for state in self.timeline.states(subject):
            begin = self.frame_of(max(state.begin, state.known_from))
            end = self.last + 1 if state.end is None else self.frame_of(state.end)
            if begin < min(end, self.last + 1):
                found.append((begin, end, state))
        return found

    def going_on(self) -> list[tuple[int, int, Segment]]:
        """(first frame that shows it, first frame at which it is over or something later goes on, event that lasts)."""
        lasting = [(f, s) for f, s in self.events if s.end is None or s.end > s.begin]
        found = []
        for index, (begin, segment) in enumerate(lasting):
            end = self.last + 1 if segment.end is None else self.frame_of(segment.end)
            # Of several that go on at once the one that became known last is spoken of.
            end = min(end, lasting[index + 1][0] if index + 1 < len(lasting) else end)
            if begin < min(end, self.last + 1):
                found.append((begin, end, segment))
        return found

    def matching(self, target: str, after: int = -1) -> list[tuple[int, Segment]]:
        """Events that a target names, from frame `after` + 1 on."""
        return [(frame, s) for frame, s in self.events if frame > after and matches(target, s.text)]

    def annotated(self) -> list[tuple[int, GivenQuestion]]:
        """Annotated questions with the frame from which on they can be answered; none in another language, and none of the world,
        whose questions are asked when all of it is over."""
        if "visible" in self.subjects or self.timeline.language != self.wording.language:
            return []
        found = [(self.frame_of(q.evidence[1]), q) for q in self.timeline.questions if q.evidence is not None]
        return [(frame, q) for frame, q in found if frame <= self.last]

    def question(
        self, frame: int, task: str, behaviour: str, subject: str = "", target: str = "", expected: str = "now", text: str = ""
    ) -> Question:
        """A request that arrives halfway between the frame before `frame` and `frame`, which is the first that can answer."""
        text = text or self.wording.request(self.rng, task, subject, target)
        t = (self.times[frame - 1] + self.times[frame]) / 2
        return Question(
            t=t,
            text=text,
            behaviour=behaviour,
            task=task,
            subject=subject,
            target=target,
            expected=expected,
            depends_on=self.depends_on(subject, target, t),
            tolerance=self.gap if behaviour == "alert" else 0.0,
        )

    @cached_property
    def gap(self) -> float:
        """The usual seconds between two frames."""
        return sorted(b - a for a, b in itertools.pairwise(self.times))[self.last // 2]

    def depends_on(self, subject: str, target: str, t: float) -> tuple[str, ...]:
        """Ids of the changes that a request at second `t` is about: the present one of its subject and all later ones."""
        about = [c for c in self.changes if (subject and c.subject == subject) or (target and matches(target, c.after))]
        past = [c for c in about if c.t <= t]
        return tuple(c.id for c in past[-1:] + [c for c in about if c.t > t])

    def plan(self, behaviour: str, *questions: Question) -> Plan:
        """The plan of a dialogue that shows one behaviour."""
        ordered = tuple(sorted(questions, key=lambda q: q.t))
        return Plan(questions=ordered, behaviours=(behaviour,), language=self.wording.language)

    def pick(self, options: Sequence[tuple[int, int, Segment]]) -> tuple[int, int, Segment]:
        """One of several stretches."""
        return options[self.rng.randrange(len(options))]

    def steady(self, subjects: Sequence[str]) -> list[str]:
        """Subjects without the restless ones, unless there are no others."""
        calm = [s for s in subjects if s.split(":")[0] not in RESTLESS]
        return calm or list(subjects)


def narration(ground: Ground, behaviour: str = "narrate") -> Question:
    """The request for a narration between the first two frames, or the empty turn of a dialogue that nobody opens."""
    if ground.unasked and ground.rng.random() < ground.unasked:
        return Question(t=0.0, text="", behaviour=behaviour, task="narrate", expected="later")
    return ground.question(1, "narrate", behaviour, expected="later")


def draw_subject(ground: Ground, subjects: Sequence[str]) -> str:
    """One subject: first its prefix, then the rest, so that many objects do not crowd out the number of them."""
    prefix = ground.rng.choice(sorted({s.split(":")[0] for s in subjects}))
    return ground.rng.choice([s for s in subjects if s.split(":")[0] == prefix])
