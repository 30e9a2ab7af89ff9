"""A session that is paused, written to a file and made anew goes on token for token."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.text.tokenizer import Tokenizer
from inference.cache.policies.policy import CachePolicy
from inference.cache.policies.text import TextWindow
from inference.cache.policies.window import Window
from inference.engine import StepEngine
from inference.model.load import load_model
from inference.sampling import SamplingConfig
from inference.session.arrivals import Arrival, merge
from inference.session.clock import VirtualClock
from inference.session.inbox import Inbox
from inference.session.loop import RealtimeSession
from inference.session.settings import SessionSettings
from model.errors import InputError
from tests.inference.checkpoints import tiny_config, write_checkpoint
from tests.inference.session.streams import FRAMES, RecordingEngine, frames, said

ARRIVALS = list(
    merge(
        [Arrival(t=0.5, prompt="left"), Arrival(t=2.4, prompt="what is it ?"), Arrival(t=2.6, control="stop")],
        [Arrival(t=3.3, control="reset"), Arrival(t=3.3, prompt="up")],
        frames(20, fps=16.0),
    )
)
POLICY = CachePolicy(cross=Window(3), text=TextWindow(64, 64), step_frames=2)


@settings(max_examples=6)
@given(
    pause=st.floats(0.0, 5.0),
    sampled=st.booleans(),
    policy=st.sampled_from([None, POLICY]),
    pace=st.sampled_from([{"tokens_per_second": 7.0}, {"tokens_per_frame": 3, "frame_seconds": 1 / 3}]),
)
def test_a_restored_session_says_what_the_uninterrupted_one_says(
    engine: RecordingEngine,
    tokenizer: Tokenizer,
    tmp_path_factory: pytest.TempPathFactory,
    pause: float,
    sampled: bool,
    policy: CachePolicy | None,
    pace: dict[str, float],
) -> None:
    engine.steps = []
    manners = SessionSettings(
        sampling=SamplingConfig(do_sample=sampled, seed=5, repetition_penalty=1.2),
        max_pending_frames=2,
        max_frames_per_step=1,
        queue_policy="degrade",
        max_new_tokens=80,
        policy=policy,
        **pace,  # type: ignore[arg-type]
    )
    whole = RealtimeSession(engine, tokenizer, Inbox(ARRIVALS), VirtualClock(), manners)
    whole.run(6.0)
    first = RealtimeSession(engine, tokenizer, Inbox(ARRIVALS), VirtualClock(), manners)
    first.run(6.0, pause_at=pause)
    assert first.end_reason in ("paused", whole.end_reason)
    if first.end_reason != "paused":
        return
    path = tmp_path_factory.mktemp("state") / "session.safetensors"
    first.save_state(path)
    elsewhere = StepEngine(engine.model)  # another store, other pages
    second = RealtimeSession.restore(path, elsewhere, tokenizer, Inbox(ARRIVALS), VirtualClock)
    assert second.clock.now() == first.clock.now() and second.ledger.balanced
    second.run(6.0)
    assert said(first) + said(second) == said(whole)
    assert second.ledger == whole.ledger
    first.run(6.0)  # the first may go on as well
    assert said(first) == said(whole)


def test_only_a_paused_session_is_saved_and_only_its_own_model_takes_it(
    engine: RecordingEngine, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    engine.steps = []
    path = tmp_path / "deep" / "session"
    session = RealtimeSession(engine, tokenizer, Inbox(frames(3)), VirtualClock(), SessionSettings(tokens_per_second=4.0))
    with pytest.raises(InputError, match="pause it"):
        session.save_state(path)
    session.run(pause_at=1.0)
    (tmp_path / "taken" / "inside").mkdir(parents=True)
    with pytest.raises(InputError, match="taken cannot be written"):
        session.save_state(tmp_path / "taken")
    assert [entry.name for entry in tmp_path.iterdir()] == ["taken"]  # nothing half written
    session.save_state(path)
    config = tiny_config(tokenizer.vocab_size)
    wide = config.text.__class__(**vars(config.text) | {"num_attention_heads": 8, "num_key_value_heads": 4})
    folder = write_checkpoint(tmp_path / "other", config.__class__(vision=config.vision, text=wide), tokenizer=tokenizer)
    other = load_model(folder)
    with pytest.raises(InputError, match="kv_heads"):
        RealtimeSession.restore(path, StepEngine(other), tokenizer, Inbox(frames(3)), VirtualClock)
    with pytest.raises(InputError, match="schedule ends"):
        RealtimeSession.restore(path, engine, tokenizer, Inbox(), VirtualClock)
    used = Inbox(live=True)
    used.push_frame(FRAMES[0], 0.0)
    with pytest.raises(InputError, match="has taken 1 frames already"):
        RealtimeSession.restore(path, engine, tokenizer, used, VirtualClock)
    with pytest.raises(InputError, match="does not exist"):
        RealtimeSession.restore(tmp_path / "none", engine, tokenizer, Inbox(), VirtualClock)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="damaged"):
        RealtimeSession.restore(path, engine, tokenizer, Inbox(), VirtualClock)


def test_a_session_can_be_paused_while_it_runs(engine: RecordingEngine, tokenizer: Tokenizer) -> None:
    engine.steps = []
    manners = SessionSettings(tokens_per_second=4.0, max_new_tokens=30)
    whole = RealtimeSession(engine, tokenizer, Inbox(frames(4)), VirtualClock(), manners)
    whole.run(5.0)
    session = RealtimeSession(engine, tokenizer, Inbox(frames(4)), VirtualClock(), manners, lambda event: session.pause())
    reasons = []
    while not reasons or reasons[-1] == "paused":
        reasons.append(session.run(5.0))
    assert len(reasons) > 3 and reasons[-1] == "until" and session.events == whole.events
