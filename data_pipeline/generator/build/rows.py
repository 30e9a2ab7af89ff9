"""One row: a dialogue about a clip, written, laid out, held against the hard rules and the gates that look at one row."""

from __future__ import annotations

import dataclasses
import random
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from data_pipeline.generator.author import Author, Unfit
from data_pipeline.generator.backends.chat import EndpointClosed, EndpointDown
from data_pipeline.generator.build.config import VERSION, BuildConfig
from data_pipeline.generator.build.sources import Clip
from data_pipeline.generator.plan import Draft, Judgement, Rejection
from data_pipeline.generator.stages.seen import answered, leaks_by_rules
from data_pipeline.generator.stages.write import draft_to_dialogue, write_dialogue
from data_pipeline.realtime.dialogue import Dialogue
from data_pipeline.realtime.emission import CountTokens, draw_rate
from data_pipeline.realtime.layout import lay_out, slots_of
from data_pipeline.realtime.rules import CheckOptions, check_dialogue
from data_pipeline.text.tokenizer import Tokenizer
from data_pipeline.timeline.timeline import Timeline
from model.errors import InputError

MOST_FAILURES = 5
"""Rows at which an endpoint may fail, after all retries, without answering anything in between; then the build stops."""


@dataclass(kw_only=True)
class Row:
    """A row that is sound."""

    dialogue: Dialogue
    timeline: Timeline
    """What it was written from, cleaned."""


class Outage:
    """Tells a request that an endpoint cannot serve from an endpoint that serves none any more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures = 0
        self._answered = -1

    def enter(self, error: EndpointDown, author: Author) -> None:
        """Count a failure.

        Raises:
            EndpointDown: there were several without any answer between them.
        """
        backend = getattr(author, "backend", None)
        answered = backend.usage().calls if backend is not None else 0
        with self._lock:
            self._failures = self._failures + 1 if answered == self._answered else 1
            self._answered = answered
            if self._failures >= MOST_FAILURES:
                raise error


@dataclass
class RowWriter:
    """Everything that rows of a build have in common.

    Args:
        author: who writes.
        tokenizer: for the round trip of the hard rules; None leaves it out.
    """

    config: BuildConfig
    author: Author
    count_tokens: CountTokens
    tokenizer: Tokenizer | None = None
    options: CheckOptions = field(init=False)
    outage: Outage = field(default_factory=Outage, init=False)

    def __post_init__(self) -> None:
        self.options = CheckOptions(tokenizer=self.tokenizer, cutoff=self.config.cutoff or None, max_wait=self.config.max_wait)

    def write(self, clip: Clip, identity: str, key: str) -> Row | Rejection:
        """A row about a clip.

        Args:
            identity: id of the dialogue.
            key: what all that is drawn by chance depends on, beside the seed of the build.

        Raises:
            BackendError: the budget is spent, or the endpoint fails at one row after another.
        """
        try:
            return self._write(clip, identity, key)
        except EndpointClosed:
            raise  # an account that is empty is no fault of this row: it is written when the build goes on
        except EndpointDown as error:
            self.outage.enter(error, self.author)
            return Rejection(stage="endpoint", reason=str(error))

    def _write(self, clip: Clip, identity: str, key: str) -> Row | Rejection:
        config = self.config
        rng = random.Random(f"row {config.seed} {key}")
        language = _draw(rng, config.languages)
        persona = _draw(rng, config.personas)
        try:
            timeline = self.author.normalise(clip.timeline)
        except Unfit as unfit:
            return Rejection(stage=unfit.stage, reason=unfit.reason)
        draft = write_dialogue(
            timeline, self.author, clip.frame_times, config.fps, config.behaviours, rng, language=language, persona=persona
        )
        if isinstance(draft, Rejection):
            return draft
        behaviour = draft.plan.behaviours[0] if draft.plan.behaviours else ""
        quality = self._gates(draft, timeline)
        if isinstance(quality, Rejection):
            return dataclasses.replace(quality, behaviour=behaviour)
        draft.quality.update(quality)
        dialogue = draft_to_dialogue(
            draft,
            timeline,
            identity,
            clip.frame_times,
            config.fps,
            system=config.system,
            generator={"version": VERSION, "author": self.author.identity, "seed": config.seed, "persona": persona},
            meta=timeline.meta,
        )
        dialogue = lay_out(dialogue, self.count_tokens, draw_rate(rng, config.emission))
        rejection = self.check(dialogue)
        if rejection is not None:
            return dataclasses.replace(rejection, behaviour=behaviour)
        return Row(dialogue=dialogue, timeline=timeline)

    def check(self, dialogue: Dialogue) -> Rejection | None:
        """Why a dialogue that is laid out must not be in a corpus, or None."""
        try:
            faults = check_dialogue(dialogue, self.count_tokens, self.options)
        except InputError as error:
            return Rejection(stage="rules", reason=str(error))
        if faults:
            return Rejection(stage="rules", reason=str(faults[0]))
        return self._silence(dialogue)

    def _gates(self, draft: Draft, timeline: Timeline) -> dict[str, Any] | Rejection:
        """What the gates of one row found, or why it is left out."""
        gates = self.config.gates
        quality: dict[str, Any] = {}
        if gates.require_license and not timeline.license.strip():
            return Rejection(stage="gate", reason="the video has no licence")
        if gates.leak:
            leaked = [leak for leak in leaks_by_rules(draft, timeline, self.author) if not leak.clean]
            if leaked:
                said = draft.utterances[leaked[0].utterance].text
                reason = "comes without its evidence as well" if leaked[0].before else "is wrong at its time"
                return Rejection(stage="gate", reason=f"the answer {said!r} {reason}")
            quality["leak"] = False
        judgement: Judgement | None = None
        if gates.judge > 0:
            try:
                judgement = self.author.judge(draft, timeline)
            except Unfit as unfit:
                return Rejection(stage=unfit.stage, reason=unfit.reason)
        if judgement is not None:
            quality["judge"] = round(judgement.score, 3)
            if judgement.leak:
                return Rejection(stage="gate", reason=f"the judge sees knowledge of the future: {judgement.reason}")
            if judgement.score < gates.judge:
                return Rejection(stage="gate", reason=f"the judge gives {judgement.score:.2f}: {judgement.reason}")
        quality["answers"] = [list(pair) for pair in answered(draft)]
        return quality

    def _silence(self, dialogue: Dialogue) -> Rejection | None:
        low, high = self.config.gates.silence_ratio
        slots = slots_of(dialogue, self.count_tokens)
        ratio = sum(not slot.text for slot in slots) / len(slots)
        if not low <= ratio <= high:
            return Rejection(stage="gate", reason=f"the share of silent frames is {ratio:.2f}, outside {low:g}..{high:g}")
        return None


def _draw(rng: random.Random, weights: Mapping[str, float]) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]
