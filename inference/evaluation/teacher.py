"""Teacher forcing: the true dialogue is fed as a real-time session would feed it, and the model's probabilities are recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from data_pipeline.schema import Message
from data_pipeline.text.template import encode_interruption, encode_prompt
from data_pipeline.text.tokenizer import Tokenizer
from inference.cache.session_cache import SessionCache
from inference.engine import StepEngine, Stepping
from inference.evaluation.running.frames import EncodedFrames
from inference.evaluation.running.offline import usage_of
from inference.evaluation.running.settings import RunSettings
from inference.evaluation.schema import FrameDecision, Scenario, TeacherTurn, Trace
from inference.evaluation.scorers.speaking import span_frames
from model.errors import InputError

_ROWS_A_STEP = 256
"""Rows whose logits are there at once."""


@dataclass
class PlannedTurn:
    """Rows up to the frame at which something is said, and what is said there."""

    span: int
    rows: list[int] = field(default_factory=list)
    """Ids behind the text of the turn before, up to the image token of the last frame."""
    frames: list[int] = field(default_factory=list)
    """Numbers of the frames among them."""
    text: list[int] = field(default_factory=list)


def plan_turns(scenario: Scenario, tokenizer: Tokenizer) -> list[PlannedTurn]:
    """The dialogue of a scenario's spans with a text, up to the last of them.

    At each frame the model has been silent, unless a span begins there: then its text follows, and silence after it. Texts of
    spans that begin at the same frame are one. Prompts come before the first frame at or after their time.
    """
    spoken: dict[int, list[int]] = {}
    for number, span in enumerate(scenario.spans):
        if span.text.strip():
            spoken.setdefault(min(span_frames(span, scenario)[0], scenario.num_frames - 1), []).append(number)
    system = [Message(role="system", content=scenario.system)] if scenario.system else []
    rows = encode_prompt([*system, Message(role="user", content="")], tokenizer)
    prompts = sorted(scenario.prompts, key=lambda prompt: prompt.t)
    turns: list[PlannedTurn] = []
    seen: list[int] = []
    for frame in range(max(spoken, default=-1) + 1):
        rows.append(tokenizer.silence_id)
        while prompts and prompts[0].t <= frame / scenario.fps + 1e-6:
            markers = (tokenizer.image_id, tokenizer.video_id)
            prompt = prompts.pop(0)
            rows += [token for token in encode_interruption(prompt.text, tokenizer) if token not in markers]
            if not prompts or prompts[0].t > prompt.t:  # two at the same moment are heard in one step
                rows.append(tokenizer.silence_id)
        rows.append(tokenizer.image_id)
        seen.append(frame)
        if frame in spoken:
            numbers = spoken[frame]
            text = tokenizer.encode(" ".join(scenario.spans[number].text for number in numbers))
            turns.append(PlannedTurn(numbers[0], rows, seen, text))
            rows, seen = [], []
    return turns


def teacher_stepping(
    engine: StepEngine, tokenizer: Tokenizer, scenario: Scenario, bank: EncodedFrames, settings: RunSettings
) -> Stepping[Trace]:
    """Feeds the dialogue; features of the frames must be in the bank.

    Behind the last frame of a turn that is not the last a fork goes on with true frames of the next turn as if nothing had been
    said: min(frames of the next turn, frames of this turn - 1) of them, as VideoLLM-online's evaluation has it.

    Raises:
        InputError: the dialogue needs more positions than the model has.
    """
    plan = plan_turns(scenario, tokenizer)
    length = sum(len(turn.rows) + len(turn.text) for turn in plan)
    positions = engine.model.config.text.max_position_embeddings
    if length > positions:
        raise InputError(f"scenario {scenario.id} has a dialogue of {length} rows, the model {positions} positions; shorten it")
    reader = _Reader(engine, tokenizer, scenario, bank)
    turns = []
    for number, turn in enumerate(plan):
        carried = plan[number - 1].text[-1:] if number else []
        following = plan[number + 1].frames if number + 1 < len(plan) else []
        turns.append(reader.turn(turn, carried, following[: len(turn.frames) - 1]))
    reader.cache.release()
    usage = usage_of(engine, sum(len(turn.frames) for turn in plan), length - sum(len(turn.frames) for turn in plan), reader.fed)
    return Trace(scenario_id=scenario.id, mode="teacher", turns=turns, usage=usage)
    yield  # a generator that asks for nothing: it needs the logits of all rows, not a token


class _Reader:
    """Feeds rows and reads what the model makes of them."""

    def __init__(self, engine: StepEngine, tokenizer: Tokenizer, scenario: Scenario, bank: EncodedFrames) -> None:
        self._engine, self._tokenizer, self._scenario, self._bank = engine, tokenizer, scenario, bank
        self.cache = engine.new_cache()
        self.fed = 0
        """Frames so far, those of forks included."""
        t = tokenizer
        self._silent = [t.silence_id, t.eot_id, t.eom_id, t.eos_text_id]  # a session takes them all for silence
        self._banned = [t.ellipsis_id, t.video_id, t.bos_id, t.pad_id, t.start_header_id, t.end_header_id]

    def turn(self, turn: PlannedTurn, carried: list[int], later: Sequence[int]) -> TeacherTurn:
        """One turn: `carried` is the last token of the text before, `later` are frames of the next turn."""
        decisions, last = self._watch(self.cache, [*carried, *turn.rows], turn.frames)
        found = TeacherTurn(span=turn.span, frames=decisions)
        if later:
            fork = self.cache.fork()
            more = [token for _ in later for token in (self._tokenizer.silence_id, self._engine.image_id)]
            found.later = self._watch(fork, more, later)[0]
            fork.release()
        told = last  # [tokens, vocab], as each token of the text is chosen
        if turn.text[1:]:
            told = torch.cat([last, self._engine.step(self.cache, turn.text[:-1], every_row=True)])
        target = torch.tensor(turn.text, device=told.device)
        found.losses = torch.nn.functional.cross_entropy(told, target, reduction="none").tolist()
        found.correct = (told.argmax(dim=-1) == target).tolist()
        return found

    def _watch(self, cache: SessionCache, rows: Sequence[int], frames: Sequence[int]) -> tuple[list[FrameDecision], torch.Tensor]:
        """Feed rows with frames; the decision after each frame, and fp32 logits [1, vocab] of the last row."""
        decisions: list[FrameDecision] = []
        waiting, last = list(frames), torch.empty(0)
        for begin in range(0, len(rows), _ROWS_A_STEP):
            part = rows[begin : begin + _ROWS_A_STEP]
            count = sum(token == self._engine.image_id for token in part)
            states = self._bank.get(self._scenario, waiting[:count]) if count else None
            waiting = waiting[count:]
            logits = self._engine.step(cache, part, states, every_row=True)
            decisions += self._decisions(part, logits)
            last = logits[-1:].clone()
        self.fed += len(frames)
        return decisions, last

    def _decisions(self, rows: Sequence[int], logits: torch.Tensor) -> list[FrameDecision]:
        """What would have been said after each frame."""
        places = [place for place, token in enumerate(rows) if token == self._engine.image_id]
        if not places:
            return []
        chosen = logits[places]  # [frames, vocab]
        silence = chosen.softmax(dim=-1)[:, self._tokenizer.silence_id].tolist()
        allowed = chosen.index_fill(1, torch.tensor(self._banned, device=chosen.device), float("-inf"))
        best = allowed.argmax(dim=-1).tolist()
        return [FrameDecision(silence=p, silent=token in self._silent) for p, token in zip(silence, best, strict=True)]
