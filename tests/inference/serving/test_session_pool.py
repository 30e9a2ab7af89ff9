"""Many sessions on one engine: each gets what it would get alone, nobody's pages are lost, who does not fit is told so."""

from __future__ import annotations

import dataclasses
import functools
import random
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.text.tokenizer import Tokenizer
from inference.cache.policies.policy import CachePolicy, PageBounds
from inference.cache.policies.text import TextWindow
from inference.cache.policies.window import Window
from inference.cache.store import KVStore
from inference.engine import StepEngine, Stepping, StepRequest
from inference.model.load import load_model
from inference.model.video_mllama import VideoMllama
from inference.offline import Answerer, question_rows
from inference.sampling import Sampler, SamplingConfig
from inference.serving import AdmissionError, KVBudget, RoundLimits, SessionPool, SharedVirtualClock
from inference.session import Arrival, Inbox, RealtimeSession, SessionSettings, VirtualClock, WallClock
from inference.session.loop import Waiting
from inference.vision.encoder import FrameEncoder
from model.errors import InputError
from tests.inference.checkpoints import tiny_config, tiny_tokenizer, write_checkpoint

CONFIG = tiny_config()
IMAGE = CONFIG.image_token_id
FRAMES = torch.randint(0, 256, (16, 3, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
SMALL = RoundLimits(light_rows=1, heavy_rows=3, frames=1)
ANY = PageBounds(1, 1)


class CountingEngine(StepEngine):
    """Counts steps and rows."""

    steps = rows = 0

    def serve(self, requests: Sequence[StepRequest]) -> list[Any]:
        """As `StepEngine.serve`."""
        self.steps += 1
        self.rows += sum(len(request.tokens) for request in requests)
        return super().serve(requests)


class CountingEncoder(FrameEncoder):
    """Counts frames."""

    encoded = 0

    def encode(self, frames: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        """As `FrameEncoder.encode`."""
        self.encoded += len(frames)
        return super().encode(frames, *args, **options)


@pytest.fixture
def encoder(model: VideoMllama, monkeypatch: pytest.MonkeyPatch) -> CountingEncoder:
    found = CountingEncoder(model.vision)
    monkeypatch.setattr(model, "encoder", found)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("pool"), CONFIG, tokenizer=tiny_tokenizer())


@pytest.fixture(scope="module")
def model(folder: Path) -> VideoMllama:
    return load_model(folder)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(folder)


def make_engine(model: VideoMllama, positions: int = 64, frames: int = 8, *, growable: bool = True) -> CountingEngine:
    device = torch.device("cpu")
    store = KVStore(CONFIG, device, torch.float32, positions=positions, frames=frames, growable=growable, rows_per_page=8)
    return CountingEngine(model, store)


def logits_of(engine: StepEngine, steps: list[list[int]], first: int) -> Stepping[torch.Tensor]:
    """Feeds steps; every session sees other frames."""
    cache = engine.new_cache()
    rows, seen = [], first
    for tokens in steps:
        new = tokens.count(IMAGE)
        frames = torch.stack([FRAMES[(seen + i) % len(FRAMES)] for i in range(new)]) if new else None
        seen += new
        rows.append((yield StepRequest(cache, tokens, frames)))
    return torch.stack(rows)


TOKENS = st.one_of(st.integers(0, 299), st.just(IMAGE))
SESSION = st.lists(st.lists(TOKENS, min_size=1, max_size=9), min_size=1, max_size=3)


@settings(max_examples=8)
@given(sessions=st.lists(st.tuples(SESSION, st.integers(0, 6)), min_size=1, max_size=5), places=st.integers(1, 5))
def test_each_session_gets_what_it_would_get_alone(
    model: VideoMllama, sessions: list[tuple[list[list[int]], int]], places: int
) -> None:
    engine = make_engine(model)
    pool = SessionPool(engine, limits=SMALL, max_sessions=places, when_full="wait")
    tickets = {}
    for round_number in range(8):
        for number, (steps, joins) in enumerate(sessions):
            if joins == round_number:
                tickets[number] = pool.submit(lambda s=steps, n=number: logits_of(engine, s, n), ANY)  # type: ignore[misc]
        assert pool.running <= places
        pool.run_round()
    pool.run()
    assert engine.store.used_bytes == 0 and pool.running == pool.in_line == 0
    for number, (steps, _) in enumerate(sessions):
        (alone,) = engine.drive([logits_of(engine, steps, number)])
        together = tickets[number].result
        assert tickets[number].done and together is not None
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_a_wrong_session_ends_alone(model: VideoMllama) -> None:
    engine = make_engine(model, positions=32, frames=2, growable=False)
    pool = SessionPool(engine)
    good = pool.submit(lambda: logits_of(engine, [[1, 2], [3], [4]], 0), ANY)
    wrong = pool.submit(lambda: logits_of(engine, [[1], [999], [2]], 0), ANY, "wrong")
    greedy = pool.submit(lambda: logits_of(engine, [[1], [IMAGE] * 3, [2]], 0), ANY, "greedy")
    pool.run()
    assert good.done and good.error is None and good.result is not None and len(good.result) == 3
    assert wrong.done and "token id 999 is outside" in str(wrong.error)
    assert greedy.done and "pages are needed" in str(greedy.error)
    assert pool.running == 0 and engine.store.used_bytes == 0
    assert "in logits_of" in wrong.traceback


def speaks(engine: StepEngine, seed: int, steps: int, broken_at: int) -> Stepping[list[int]]:
    """Says what it samples; at step `broken_at` it is shown a frame whose features are no numbers."""
    cache = engine.new_cache()
    sampler = Sampler(SamplingConfig(do_sample=True, seed=seed))
    rows, said = [seed, seed + 1], list[int]()
    for step in range(steps):
        features = None
        if step == broken_at:
            rows = [*rows, IMAGE]
            features = torch.full((1, CONFIG.vision.tokens_per_frame, CONFIG.text.hidden_size), float("nan"))
        said.append((yield StepRequest(cache, rows, features=features, sampler=sampler, ahead=True)))
        rows = [said[-1]]
    return said


@pytest.mark.parametrize("graphs", [False, True])
def test_scores_that_are_no_numbers_end_their_session_alone(model: VideoMllama, graphs: bool) -> None:
    alone = StepEngine(model)
    expected = [alone.drive([speaks(alone, seed, 12, -1)])[0] for seed in (3, 5, 7)]
    store = KVStore(CONFIG, torch.device("cpu"), torch.float32, positions=64, frames=4, growable=False, rows_per_page=8)
    engine = StepEngine(model, store, graphs=graphs)
    pool = SessionPool(engine)
    first = pool.submit(lambda: speaks(engine, 3, 12, -1), ANY)
    broken = pool.submit(lambda: speaks(engine, 4, 12, 5), ANY)
    last = pool.submit(lambda: speaks(engine, 5, 12, -1), ANY)
    while not broken.done:
        pool.run_round()
    heir = pool.submit(lambda: speaks(engine, 7, 12, -1), ANY)  # in the pages that hold no numbers now
    pool.run()
    assert "no token can be chosen" in str(broken.error) and broken.result is None
    assert [first.result, last.result, heir.result] == expected
    assert engine.store.used_bytes == 0


def test_a_driven_session_may_live_on_without_a_token(model: VideoMllama) -> None:
    engine = StepEngine(model)

    def patient() -> Stepping[str]:
        try:
            yield from speaks(engine, 4, 3, 1)
        except InputError as error:
            return str(error)
        return ""

    (said,) = engine.drive([speaks(engine, 3, 8, -1)])
    both = engine.drive([patient(), speaks(engine, 3, 8, -1)])
    assert "no token can be chosen" in str(both[0]) and both[1] == said
    with pytest.raises(InputError, match="no token can be chosen"):
        engine.drive([speaks(engine, 4, 3, 1)])


def test_pages_of_a_session_that_failed_are_free_while_somebody_looks_at_it(model: VideoMllama, tokenizer: Tokenizer) -> None:
    engine = make_engine(model)
    session = RealtimeSession(engine, tokenizer, Inbox(arrivals_of(1, 4)), VirtualClock(), settings_for(1))
    stepping = session.stepping(until=3.0)
    engine.serve([next(stepping)])  # type: ignore[list-item]
    assert engine.store.used_bytes > 0
    with pytest.raises(RuntimeError, match="the device is gone"):
        stepping.throw(RuntimeError("the device is gone"))
    assert engine.store.used_bytes == 0 and session.cache.length == 0


def test_a_session_that_cannot_be_made_is_promised_nothing(model: VideoMllama) -> None:
    budget = KVBudget(2, 2)
    pool = SessionPool(StepEngine(model), budget, max_sessions=1, when_full="wait")

    def broken() -> Any:
        raise InputError("no such video")

    def idle() -> Any:
        return 1
        yield

    with pytest.raises(InputError, match="no such video"):
        pool.submit(broken, PageBounds(1, 1))
    assert (budget.promised_rows, budget.promised_frames, pool.running) == (0, 0, 0)
    pool.max_sessions = 0  # full for a moment
    late, good = pool.submit(broken, PageBounds(1, 1)), pool.submit(idle, PageBounds(1, 1))
    pool.max_sessions = 1
    pool.run()
    assert late.done and str(late.error) == "no such video" and good.result == 1
    assert (budget.promised_rows, budget.promised_frames) == (0, 0)


def test_who_does_not_fit_is_refused_or_waits(model: VideoMllama) -> None:
    engine = make_engine(model, positions=40, frames=4, growable=False)
    budget = KVBudget.of(engine.store)
    assert (budget.row_pages, budget.frame_pages) == (5, 4)

    def one(pages: int) -> PageBounds:
        return PageBounds(pages, 1)

    pool = SessionPool(engine, budget)
    first = pool.submit(lambda: logits_of(engine, [[1], [2]], 0), one(3), "first")
    with pytest.raises(AdmissionError, match="second: a session that may hold 3 pages of rows does not fit: 3 of 5 are promised"):
        pool.submit(lambda: logits_of(engine, [[1]], 0), one(3), "second")
    with pytest.raises(AdmissionError, match="6 pages of rows does not fit into 5; bound it by a policy"):
        pool.submit(lambda: logits_of(engine, [[1]], 0), one(6))
    assert pool.running == 1
    patient = SessionPool(engine, budget, when_full="wait")
    with pytest.raises(AdmissionError, match="does not fit into 4"):
        patient.submit(lambda: logits_of(engine, [[1]], 0), PageBounds(1, 5))
    # Whoever came first comes in first, also where a later one would fit.
    large = patient.submit(lambda: logits_of(engine, [[1], [2]], 0), one(3))
    small = patient.submit(lambda: logits_of(engine, [[1]], 0), one(1))
    assert patient.in_line == 2 and patient.run_round() == 0
    with pytest.raises(AdmissionError, match="nobody is in whose end could make room"):
        patient.run()
    pool.run()
    assert first.done and (budget.promised_rows, budget.promised_frames) == (0, 0)
    patient.run()
    assert large.done and small.done and (budget.promised_rows, budget.promised_frames) == (0, 0)
    with pytest.raises(InputError, match="may grow without bound"):
        KVBudget.of(make_engine(model).store)
    full = SessionPool(engine, max_sessions=1)
    full.submit(lambda: logits_of(engine, [[1]], 0), ANY)
    with pytest.raises(AdmissionError, match="1 sessions run already"):
        full.submit(lambda: logits_of(engine, [[1]], 0), ANY)


def settings_for(seed: int) -> SessionSettings:
    return SessionSettings(sampling=SamplingConfig(do_sample=True, seed=seed), tokens_per_second=4, max_new_tokens=200)


def arrivals_of(seed: int, seconds: int) -> list[Arrival]:
    chance = random.Random(seed)
    found = [Arrival(t=float(t), frame=FRAMES[(seed + t) % len(FRAMES)]) for t in range(seconds)]
    found += [Arrival(t=chance.uniform(0, seconds), prompt="what colour is the ball ?") for _ in range(2)]
    return sorted(found, key=lambda arrival: arrival.t)


def test_paced_sessions_on_one_clock_say_what_they_say_alone(model: VideoMllama, tokenizer: Tokenizer) -> None:
    engine = make_engine(model)
    clock = SharedVirtualClock()
    pool = SessionPool(engine, clock=clock)
    sessions = [RealtimeSession(engine, tokenizer, Inbox(arrivals_of(i, 4 + i)), clock, settings_for(i)) for i in range(4)]
    tickets = [pool.submit_session(session, ANY, until=float(5 + i)) for i, session in enumerate(sessions)]
    pool.run()
    for i, session in enumerate(sessions):
        alone = RealtimeSession(engine, tokenizer, Inbox(arrivals_of(i, 4 + i)), VirtualClock(), settings_for(i))
        assert tickets[i].result == alone.run(until=float(5 + i))
        assert [(e.kind, e.token, e.t) for e in session.events] == [(e.kind, e.token, e.t) for e in alone.events]
        assert session.ledger.as_dict() == alone.ledger.as_dict()
        assert sum(e.kind in ("token", "silence") for e in session.events) > 10
    # One step served all that were ready: far fewer steps than each for itself.
    assert pool.rounds < max(ticket.rounds for ticket in tickets) * 2 < sum(ticket.rounds for ticket in tickets)


def test_static_buffers_and_steps_ahead_change_nothing_under_policies(model: VideoMllama, tokenizer: Tokenizer) -> None:
    policy = CachePolicy(cross=Window(3), text=TextWindow(8, 32), position_limit=104, step_rows=24, step_frames=4)
    heard, renumbered, ahead = [], 0, 0
    for graphs in (False, True):
        store = KVStore(CONFIG, torch.device("cpu"), torch.float32, raw_keys=True, rows_per_page=8)
        engine = StepEngine(model, store, graphs=graphs)
        clock = SharedVirtualClock()
        pool = SessionPool(engine, clock=clock, limits=RoundLimits(heavy_rows=16, frames=3), max_sessions=3)
        pool.prepare(Sampler(settings_for(0).sampling))
        sessions = []
        for i in range(3):
            own = dataclasses.replace(settings_for(i), policy=policy, tokens_per_second=6)
            sessions.append(RealtimeSession(engine, tokenizer, Inbox(arrivals_of(i, 8)), clock, own))
            pool.submit_session(sessions[-1], ANY, until=9.0)
        most = [0] * len(sessions)
        while pool.running:
            if not pool.run_round():
                pool._rest()
            most = [max(old, session.cache.renumberings) for old, session in zip(most, sessions, strict=True)]
        renumbered = min(most)
        heard.append([[(e.kind, e.token, e.t) for e in session.events] for session in sessions])
        ahead = 0 if engine.server is None else engine.server.used
    assert heard[0] == heard[1]
    assert renumbered >= 1 and ahead > 20


def test_a_prompt_among_speakers_goes_through_a_graph(model: VideoMllama) -> None:
    engine = StepEngine(model, graphs=True)
    pool, sampler = SessionPool(engine, max_sessions=3), Sampler(settings_for(0).sampling)
    pool.prepare(sampler)

    def speaking(rows: list[int]) -> Stepping[int]:
        cache = engine.new_cache()
        for _ in range(3):
            rows = [(yield StepRequest(cache, rows, sampler=Sampler(settings_for(0).sampling)))]
        return rows[0]

    for length in (1, 1, 100):
        pool.submit(functools.partial(speaking, [5] * length), ANY)
    pool.run()
    assert engine.server is not None
    runner = engine.server.runner
    assert runner.eager == 0 and runner.replayed == 4  # the prompt's own pass, and one for each round


def test_a_pool_whose_sessions_wait_sleeps_and_is_woken(model: VideoMllama) -> None:
    engine = make_engine(model)
    clock = WallClock()
    pool = SessionPool(engine, clock=clock)
    inboxes = [Inbox(live=True) for _ in range(2)]

    class Listener:
        def __init__(self, inbox: Inbox) -> None:
            self.inbox = inbox

        def cooperating(self, until: float | None = None) -> Any:
            while not self.inbox.end_reason:
                yield Waiting(clock.now() + 60, self.inbox.wake)
                self.inbox.wake.clear()
            return self.inbox.end_reason

    tickets = [pool.submit_session(Listener(inbox), ANY) for inbox in inboxes]
    thread = threading.Thread(target=pool.run, daemon=True)
    thread.start()
    time.sleep(0.05)
    begin = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - begin < 0.15
    for inbox in inboxes:
        inbox.end("stopped")
    thread.join(20)
    assert not thread.is_alive() and [ticket.result for ticket in tickets] == ["stopped", "stopped"]


def test_sessions_come_from_other_threads_while_it_runs(model: VideoMllama) -> None:
    engine = make_engine(model)
    pool = SessionPool(engine, max_sessions=3, when_full="wait")
    runner = threading.Thread(target=lambda: pool.run(until_closed=True), daemon=True)
    runner.start()
    tickets: dict[int, Any] = {}

    def submit(first: int) -> None:
        for number in range(first, first + 6):
            tickets[number] = pool.submit(lambda n=number: logits_of(engine, [[n, IMAGE], [n + 1]], n), ANY)  # type: ignore[misc]
            time.sleep(0.002)

    threads = [threading.Thread(target=submit, args=(first,)) for first in (0, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pool.close()
    runner.join(30)
    assert not runner.is_alive() and len(tickets) == 12 and engine.store.used_bytes == 0
    for number, ticket in tickets.items():
        (alone,) = engine.drive([logits_of(engine, [[number, IMAGE], [number + 1]], number)])
        torch.testing.assert_close(ticket.result, alone, atol=1e-5, rtol=0)


def test_sessions_are_made_in_other_threads_while_a_round_is_under_way(model: VideoMllama, tokenizer: Tokenizer) -> None:
    """A session of real time prepares the engine for its sampler: in the midst of a step that would be another's."""
    alone = StepEngine(model, graphs=True)
    expected = [alone.drive([speaks(alone, seed, 40, -1)])[0] for seed in (3, 5)]
    engine = StepEngine(model, graphs=True)
    pool = SessionPool(engine)
    tickets = [pool.submit(lambda s=seed: speaks(engine, s, 40, -1), ANY) for seed in (3, 5)]  # type: ignore[misc]
    runner = threading.Thread(target=pool.run, daemon=True)
    runner.start()
    settings = SessionSettings(sampling=SamplingConfig(do_sample=True, temperature=5.0, seed=99))
    while runner.is_alive():
        RealtimeSession(engine, tokenizer, Inbox(live=True), WallClock(), settings)
    assert [ticket.result for ticket in tickets] == expected


def test_twenty_questions_encode_a_video_once_and_hold_it_once(
    model: VideoMllama, tokenizer: Tokenizer, encoder: CountingEncoder
) -> None:
    words = ("red", "blue", "green", "ball", "flag", "board", "left", "right", "up", "down")
    questions = [f"what colour is the {a} {b} ?" for a in words[:2] for b in words]
    prompts = [question_rows(question, len(FRAMES), tokenizer) for question in questions]
    engine = make_engine(model)
    sampling = SamplingConfig(do_sample=True, temperature=3.0, seed=4)
    answerer = Answerer(engine, tokenizer, sampling=sampling, max_new_tokens=5)
    peak = 0
    inner = engine.serve

    def watched(requests: Sequence[StepRequest]) -> list[Any]:
        nonlocal peak
        answers = inner(requests)
        peak = max(peak, engine.store.cross_pool.allocator.used_pages)
        return answers

    engine.serve = watched  # type: ignore[method-assign]
    together = answerer.replies(prompts, FRAMES)
    assert encoder.encoded == len(FRAMES) and peak == len(FRAMES)
    assert engine.steps <= 1 + 5
    assert engine.store.used_bytes == 0
    alone = [answerer.reply(rows, FRAMES) for rows in prompts]
    assert together == alone and encoder.encoded == 21 * len(FRAMES)
    ahead = StepEngine(model, KVStore(CONFIG, torch.device("cpu"), torch.float32), graphs=True)
    assert Answerer(ahead, tokenizer, sampling=sampling, max_new_tokens=5).replies(prompts, FRAMES) == together
    assert ahead.server is not None and ahead.server.used > 40 and ahead.store.used_bytes == 0
    assert len({tuple(reply) for reply in together}) > 1


def test_questions_without_a_common_beginning_are_answered_too(
    model: VideoMllama, tokenizer: Tokenizer, encoder: CountingEncoder
) -> None:
    """The frames stand behind what differs: they are encoded once, though each session keeps its own."""
    engine = make_engine(model)
    prompts = [[1, *[IMAGE] * 2, 5], [2, 7, *[IMAGE] * 2, 5]]
    answerer = Answerer(engine, tokenizer, max_new_tokens=3)
    together = answerer.replies(prompts, FRAMES[:2])
    assert encoder.encoded == 2
    assert together == [answerer.reply(rows, FRAMES[:2]) for rows in prompts]


def test_soak_of_sixty_four_sessions(model: VideoMllama, tokenizer: Tokenizer) -> None:
    """Random arrivals and policies on a memory too small for all: promises are kept, nothing leaks, everyone comes to an end."""
    policy = CachePolicy(cross=Window(3), text=TextWindow(8, 24), step_rows=24, step_frames=2)
    need = policy.bounds(8, CONFIG.vision.tokens_per_frame, max_rows=10**6, max_frames=10**6)
    engine = make_engine(model, positions=need.row_pages * 8 * 40, frames=need.frame_pages * 40, growable=False)
    budget = KVBudget.of(engine.store)
    clock = SharedVirtualClock(step_seconds=0.02)
    pool = SessionPool(engine, budget, clock=clock, limits=RoundLimits(heavy_rows=64, frames=6), when_full="wait")
    chance = random.Random(3)
    sessions, tickets = [], []
    new_cache = engine.new_cache
    caches: list[Any] = []

    def with_policy(**_: Any) -> Any:
        caches.append(new_cache(policy=policy))
        return caches[-1]

    engine.new_cache = with_policy  # type: ignore[assignment]
    for number in range(64):
        own = dataclasses.replace(settings_for(number), tokens_per_second=2, max_frames_per_step=2, max_new_tokens=12)
        seconds = chance.randint(1, 3)
        shifted = [dataclasses.replace(a, t=a.t + number / 20) for a in arrivals_of(number, seconds)]
        sessions.append(RealtimeSession(engine, tokenizer, Inbox(shifted), clock, own))
        tickets.append(pool.submit_session(sessions[-1], need, f"session {number}", until=seconds + 5.0))
    assert pool.in_line == 24
    most = 0
    while pool.running or pool.in_line:
        if not pool.run_round():
            pool._rest()
        most = max(most, pool.running)
        assert budget.promised_rows == pool.running * need.row_pages
        assert engine.store.self_pool.allocator.used_pages <= budget.promised_rows
        for cache in caches:
            assert len(cache.self_table) <= need.row_pages and len(cache.cross_table) <= need.frame_pages
        caches[:] = [cache for cache in caches if cache.length]
    assert most == 40
    assert all(ticket.done and ticket.error is None and ticket.result for ticket in tickets)
    for session in sessions:
        counts = session.ledger.as_dict()
        assert counts["submitted"] == counts["processed"] + sum(counts["dropped"].values()) + sum(counts["rejected"].values())
    assert (budget.promised_rows, budget.promised_frames) == (0, 0)
