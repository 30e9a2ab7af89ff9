"""Recorded streams on a CUDA device in 16 bits, with graphs: a replay says every token again."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from inference.evaluation.schema import Trace
from inference.evaluation.storage import load_traces, save_traces
from inference.model.load import load_model
from inference.sampling import SamplingConfig
from inference.session.arrivals import Arrival, merge
from inference.session.clock import VirtualClock, WallClock
from inference.session.inbox import Inbox
from inference.session.loop import RealtimeSession
from inference.session.replay import replay_trace
from inference.session.settings import SessionSettings
from tests.inference.checkpoints import random_tensors, tiny_config, tiny_tokenizer, write_checkpoint
from tests.inference.session.streams import FRAMES, RecordingEngine

pytestmark = pytest.mark.gpu
SAMPLING = SamplingConfig(do_sample=True, top_k=20, seed=3)


@pytest.mark.parametrize("clock", ["virtual", "wall"])
def test_a_stream_on_a_gpu_replays_token_by_token(tmp_path: Path, clock: str) -> None:
    tokenizer = tiny_tokenizer()
    config = tiny_config(tokenizer.vocab_size)
    tensors = random_tensors(config, seed=11)
    tensors["language_model.lm_head.weight"][tokenizer.silence_id] *= 5
    folder = write_checkpoint(tmp_path / "model", config, tokenizer=tokenizer, tensors=tensors)
    engine = RecordingEngine(load_model(folder, "cuda", torch.bfloat16))
    engine.steps = []
    spoken = (Arrival(t=0.3, prompt="left"), Arrival(t=1.4, control="stop"), Arrival(t=2.6, prompt="what is it ?"))
    if clock == "virtual":
        frames = [Arrival(t=i / 4, frame=FRAMES[i]) for i in range(16)]
        manners = SessionSettings(sampling=SAMPLING, tokens_per_second=20.0, max_pending_frames=2, max_new_tokens=200)
        session = RealtimeSession(engine, tokenizer, Inbox(list(merge(spoken, frames))), VirtualClock(), manners)
        session.run(until=6.0)
    else:
        inbox, wall = Inbox(live=True), WallClock()
        manners = SessionSettings(sampling=SAMPLING, max_new_tokens=200, idle_timeout=0.0)
        session = RealtimeSession(engine, tokenizer, inbox, wall, manners)
        source = threading.Thread(target=_push, args=(inbox, wall))
        source.start()
        session.run()
        source.join()
    assert sum(event.token is not None for event in session.events) > 20
    details = {"clock": clock, "session": session.describe()}
    save_traces(tmp_path / "t.jsonl", [Trace(scenario_id="s", mode="push", events=session.events, engine=details)])
    report = replay_trace(load_traces(tmp_path / "t.jsonl")[0], FRAMES, engine, tokenizer)
    assert report.matches, report.difference.describe() if report.difference else ""
    assert report.compared > 20


def _push(inbox: Inbox, clock: WallClock) -> None:
    for i in range(12):
        inbox.push_frame(FRAMES[i], clock.now())
        if i % 5 == 1:
            inbox.push_prompt("left", clock.now())
        threading.Event().wait(0.05)
    inbox.close()
