"""Teacher forcing feeds what a session feeds, and records what one pass over the whole dialogue says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from data_pipeline.text.tokenizer import Tokenizer
from inference.engine import StepEngine
from inference.evaluation.latency.decisions import Script, scripted
from inference.evaluation.running.frames import EncodedFrames, read_frames
from inference.evaluation.running.runner import ScenarioRunner
from inference.evaluation.running.settings import RunSettings
from inference.evaluation.schema import PromptEvent, Scenario, Span, TeacherTurn
from inference.evaluation.storage import load_traces, save_traces
from inference.evaluation.teacher import plan_turns
from inference.model.load import load_model
from inference.session.arrivals import Arrival, merge
from inference.session.clock import VirtualClock
from inference.session.inbox import Inbox
from inference.session.loop import RealtimeSession
from inference.session.settings import SessionSettings
from tests.inference.checkpoints import random_tensors, tiny_config, tiny_tokenizer, write_checkpoint
from tests.inference.clips import write_clip
from tests.inference.session.streams import RecordingEngine

FRAMES = 9
SCENARIO = Scenario(
    id="s",
    video="clip.mp4",
    fps=2.0,
    num_frames=FRAMES,
    system="left right",
    prompts=[
        PromptEvent(t=0.5, text="what colour is the ball ?"),
        PromptEvent(t=1.2, text="up"),
        PromptEvent(t=1.2, text="down"),
    ],
    spans=[
        Span(a=2.0, b=2.0, text="red ball appears"),
        Span(a=3.5, b=4.0, text="green board turns yellow"),
        Span(a=1.0, b=1.0),  # without a text nothing is told
        Span(a=2.0, b=2.5, text="left"),
    ],
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("teacher")
    tokenizer = tiny_tokenizer()
    write_checkpoint(
        root / "hf", tiny_config(tokenizer.vocab_size), tokenizer=tokenizer, tensors=random_tensors(tiny_config(), 6)
    )
    write_clip(root / "clip.mp4", [25 * i for i in range(FRAMES)], fps=2)
    return root


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(folder / "hf")


def _engine(folder: Path) -> StepEngine:
    return StepEngine(load_model(folder / "hf", "cpu", torch.float32))


def _turns(folder: Path, tokenizer: Tokenizer) -> list[TeacherTurn]:
    (trace,) = ScenarioRunner(_engine(folder), tokenizer, folder, RunSettings(modes=("teacher",)), strict=True).run([SCENARIO])[0]
    assert trace.mode == "teacher" and trace.usage["frames"] == 8
    return trace.turns


def test_the_rows_are_those_of_a_session(folder: Path, tokenizer: Tokenizer) -> None:
    """Until something is said: a session whose every decision is silence feeds the same."""
    engine = RecordingEngine(load_model(folder / "hf", "cpu", torch.float32))
    engine.steps = []
    frames = read_frames(SCENARIO, folder, range(5), 28)
    arrivals = [Arrival(t=n / 2, frame=pixels) for n, pixels in enumerate(frames)]
    prompts = [Arrival(t=prompt.t, prompt=prompt.text) for prompt in SCENARIO.prompts]
    settings = SessionSettings(system=SCENARIO.system, tokens_per_second=16)
    session = RealtimeSession(engine, tokenizer, Inbox(merge(prompts, arrivals)), VirtualClock(), settings)
    engine.drive([scripted(session, Script(answer=0), session.stepping(until=2.3))])
    first = plan_turns(SCENARIO, tokenizer)[0]
    assert engine.fed == first.rows and first.frames == [0, 1, 2, 3, 4]


def test_it_records_what_one_pass_says(folder: Path, tokenizer: Tokenizer) -> None:
    engine, plan = _engine(folder), plan_turns(SCENARIO, tokenizer)
    bank = EncodedFrames(engine, folder)
    bank.want(SCENARIO, range(FRAMES))
    assert [turn.span for turn in plan] == [0, 1] and plan[0].text == tokenizer.encode("red ball appears left")
    rows = [token for turn in plan for token in (*turn.rows, *turn.text)]
    whole = engine.step(engine.new_cache(), rows, bank.get(SCENARIO, range(8)), every_row=True).log_softmax(dim=-1)
    place = 0
    for planned, turn in zip(plan, _turns(folder, tokenizer), strict=True):
        images = [place + i for i, token in enumerate(planned.rows) if token == tokenizer.image_id]
        assert [frame.silence for frame in turn.frames] == pytest.approx(
            whole[images, tokenizer.silence_id].exp().tolist(), abs=1e-5
        )
        place += len(planned.rows)
        losses = [-float(whole[place - 1 + i, token]) for i, token in enumerate(planned.text)]
        assert turn.losses == pytest.approx(losses, abs=1e-5)
        assert turn.correct == [int(whole[place - 1 + i].argmax()) == token for i, token in enumerate(planned.text)]
        place += len(planned.text)


def test_later_frames_follow_as_if_nothing_had_been_said(folder: Path, tokenizer: Tokenizer) -> None:
    engine, plan = _engine(folder), plan_turns(SCENARIO, tokenizer)
    first, last = _turns(folder, tokenizer)
    # The next turn has 3 frames, this one 5: min(3, 5 - 1). Nothing follows the last.
    assert len(first.later) == 3 and last.later == []
    bank = EncodedFrames(engine, folder)
    bank.want(SCENARIO, range(FRAMES))
    rows = plan[0].rows + 3 * [tokenizer.silence_id, tokenizer.image_id]
    logits = engine.step(engine.new_cache(), rows, bank.get(SCENARIO, range(8)), every_row=True)
    expected = logits.softmax(dim=-1)[[-5, -3, -1], tokenizer.silence_id].tolist()
    assert [frame.silence for frame in first.later] == pytest.approx(expected, abs=1e-5)


def test_a_trace_of_turns_survives_its_file(folder: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    (trace,) = ScenarioRunner(_engine(folder), tokenizer, folder, RunSettings(modes=("teacher",))).run([SCENARIO])[0]
    save_traces(tmp_path / "t.jsonl", [trace])
    (read,) = load_traces(tmp_path / "t.jsonl")
    assert read.turns == trace.turns and read.usage == trace.usage
