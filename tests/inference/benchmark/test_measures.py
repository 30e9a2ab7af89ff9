"""The timing cores, with clocks that only move when they are told to, and with a small model."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inference.benchmark.arrival import FrameFeed
from inference.benchmark.bench import engine_of
from inference.benchmark.generation import Generated, answer, fixed_length, session
from inference.benchmark.models import TINY, RandomTensors, random_model, valid_patch_rows
from inference.benchmark.parts.correctness import compare, shortfall
from inference.benchmark.parts.live import Heard, speaking, summarise
from inference.benchmark.parts.long_stream import trend
from inference.benchmark.parts.stream import WARM_UP, reaction_times
from inference.benchmark.windows import newest, rows_needed
from inference.benchmark.workload import clip_frames, prompt
from inference.engine import StepEngine
from inference.model.load import text_shapes
from model.config import VideoMllamaConfig

IMAGE = TINY.image_token_id


@dataclass
class Steps:
    """A clock that moves by `step` whenever it is read."""

    step: float = 0.0
    time: float = 0.0

    def now(self) -> float:
        self.time += self.step
        return self.time

    def sync(self) -> None:
        pass

    def wait_until(self, t: float) -> None:
        self.time = max(self.time, t)


@pytest.fixture(scope="module", params=[False, True], ids=["eager", "static buffers"])
def engine(request: pytest.FixtureRequest) -> StepEngine:
    return engine_of(random_model(TINY, "cpu", torch.float32, seed=2), rows=64, frames=8, graphs=request.param)


@dataclass
class SlowTicket:
    """A frame that is encoded at a moment."""

    clock: Steps
    done: float
    number: int

    @property
    def ready(self) -> bool:
        return self.clock.time >= self.done

    def features(self) -> torch.Tensor:
        return torch.full((1, 2, 3), float(self.number))


@dataclass
class SlowTower:
    """Encodes one frame after the other."""

    clock: Steps
    seconds: float
    free: float = 0.0
    tickets: list[SlowTicket] = field(default_factory=list)

    def submit(self, frame: torch.Tensor) -> SlowTicket:
        self.free = max(self.free, self.clock.time) + self.seconds
        self.tickets.append(SlowTicket(self.clock, self.free, len(self.tickets)))
        return self.tickets[-1]


@given(
    fps=st.floats(0.5, 50),
    seconds=st.floats(0, 1),
    looks=st.lists(st.floats(0.001, 0.7), min_size=1, max_size=30),
    late=st.floats(0, 2),
)
def test_frames_are_submitted_when_due_and_taken_in_order_when_encoded(
    fps: float, seconds: float, looks: list[float], late: float
) -> None:
    clock = Steps()
    tower = SlowTower(clock, seconds)
    feed = FrameFeed(torch.zeros(3, 1), late, fps, tower.submit, clock)
    taken: list[float] = []
    for pause in looks:
        clock.time += pause
        found = feed.take(99)
        due_by_now = 0 if clock.time < late else math.floor((clock.time - late) * fps + 1e-9) + 1
        assert abs(feed.submitted - due_by_now) <= 1 and len(tower.tickets) == feed.submitted
        for due, states in found:
            assert due == late + len(taken) / fps and due <= clock.time
            assert float(states[0, 0, 0]) == len(taken) and tower.tickets[len(taken)].done <= clock.time
            taken.append(due)
        assert len(taken) == sum(ticket.done <= clock.time for ticket in tower.tickets)


def test_frames_over_the_most_wait_for_the_next_look() -> None:
    clock = Steps(time=10.0)
    feed = FrameFeed(torch.zeros(1, 1), 0.0, 0.4, SlowTower(clock, 0.0).submit, clock)
    assert [[due for due, _ in feed.take(2)] for _ in range(4)] == [[0.0, 2.5], [5.0, 7.5], [10.0], []]


def test_speaking_splices_frames_in_behind_the_token_and_keeps_its_windows(engine: StepEngine) -> None:
    clock = Steps(step=0.01)
    cache = engine.new_cache(policy=newest(3, 20))
    features = engine.encode(clip_frames(TINY, 4))
    engine.drive([fixed_length(cache, prompt(TINY, 4, 6), 1, clock, features=features)])
    feed = FrameFeed(clip_frames(TINY, 2), clock.time, 5.0, engine.encoder.submit, clock)
    heard = engine.drive([speaking(cache, 7, IMAGE, feed, clock.time + 2.0, clock)])[0]
    frames = len(heard.frame_latencies)
    assert 8 <= frames <= 10 and min(heard.frame_latencies) > 0
    # Each round reads the clock: whether to go on, which frames are due, and when the token came.
    assert 40 <= len(heard.token_times) <= 70
    assert cache.frames == 3 and 20 <= cache.length <= rows_needed(20)
    assert cache.next_position == 4 + 6 + len(heard.token_times) + frames


def test_summary_of_what_sessions_did() -> None:
    even = Heard([0.0, 0.1, 0.2, 0.3, 0.4], [0.05])
    halting = Heard([0.0, 0.1, 0.5], [0.15, 0.25])
    found = summarise([even, halting], fps=4.0)
    assert found["tokens_per_second"] == pytest.approx({"mean": 7.0, "slowest": 4.0, "each": [10.0, 4.0]}, abs=1e-9)
    assert found["statistics"]["gap_s"]["count"] == 6 and found["statistics"]["gap_s"]["p50"] == pytest.approx(0.1)
    assert found["jitter"] == pytest.approx(found["statistics"]["gap_s"]["p99"] / 0.1)
    assert found["frames_seen"] == 3 and found["statistics"]["frame_latency_s"]["p50"] == pytest.approx(0.15)
    assert [len(run["gap_s"]) for run in found["runs"]] == [4, 2]


def test_reactions_are_timed_without_the_undoing_and_the_warm_up() -> None:
    clock, undone = Steps(), []

    def react(number: int) -> None:
        clock.time += 100.0 if number < WARM_UP else 0.5 + number - WARM_UP

    def undo() -> None:
        clock.time += 7.0
        undone.append(clock.time)

    assert reaction_times(clock, react, undo, 3) == [0.5, 1.5, 2.5] and len(undone) == 3 + WARM_UP


@pytest.mark.parametrize("grows", [False, True])
def test_trend_of_a_stream(grows: bool) -> None:
    steps = [0.5] * 20 + [0.01 + (0.001 * n if grows else 0) for n in range(100)]
    memory = [(n, 3.0 + (0.01 * n if grows else 0)) for n in range(10, 121, 10)]
    found = trend(steps, memory, filled=20)
    assert found["memory_gib_per_hour"] == pytest.approx(36.0 if grows else 0.0, abs=1e-6)
    assert found["step_seconds_per_hour"] == pytest.approx(3.6 if grows else 0.0, abs=1e-6)
    assert found["last_over_first"] == pytest.approx(7.21 if grows else 1.0, abs=0.2)


def test_comparison_of_logits_sees_what_is_wrong() -> None:
    good = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    assert compare(good, good) == {"relative_rms": 0.0, "least_cosine": pytest.approx(1.0), "same_likeliest": 1.0, "finite": 1.0}
    wrong = good.clone()
    wrong[2] = -wrong[2]
    found = compare(good, wrong)
    assert found["relative_rms"] > 0.5 and found["least_cosine"] == pytest.approx(-1.0) and found["same_likeliest"] == 0.8
    assert shortfall(good, good.argmax(-1).tolist()) == 0.0
    second = good.topk(2).indices[:, 1].tolist()
    assert 0 < shortfall(good, second) < shortfall(good, good.argmin(-1).tolist())
    wrong[0, 0] = float("nan")
    assert compare(good, wrong)["finite"] == 0.0


def test_answers_have_the_asked_length_and_a_time_for_each_token(engine: StepEngine) -> None:
    clock = Steps(step=0.25)
    frames = clip_frames(TINY, 3)
    rows = prompt(TINY, 3, 9)
    found = answer(engine, rows, 6, clock, frames)
    assert (
        len(found.tokens) == 6 and found.times == [0.25 * n for n in range(1, 7)] and found.tokens_per_second == pytest.approx(4)
    )
    assert Generated().tokens_per_second == 0.0
    # the same tokens as taking the likeliest of the whole sequence each time
    features = engine.encode(frames)
    for count, token in enumerate(found.tokens):
        with session(engine) as cache:
            logits = engine.step(cache, [*rows, *found.tokens[:count]], features)
        assert int(logits[-1].argmax()) == token
    assert engine.store.self_pool.allocator.used_pages == engine.store.cross_pool.allocator.used_pages == 0


def test_random_weights_depend_on_seed_and_name_alone_and_nothing_is_kept() -> None:
    shapes = text_shapes(TINY)
    drawn, again, other = (RandomTensors(shapes, torch.device("cpu"), torch.float32, seed) for seed in (1, 1, 2))
    backwards = {name: again[name] for name in reversed(list(shapes))}
    for name, shape in shapes.items():
        assert tuple(drawn[name].shape) == shape and torch.equal(drawn[name], backwards[name])
        assert drawn[name].data_ptr() != drawn[name].data_ptr() or drawn[name].numel() == 1
        if "norm" not in name and "gate" not in name.rsplit(".", 1)[-1]:
            assert not torch.equal(drawn[name], other[name])
    matrix = drawn["language_model.model.layers.0.mlp.down_proj.weight"]
    assert float(matrix.std()) == pytest.approx(TINY.text.intermediate_size**-0.5, rel=0.05)
    gates = [float(value) for name, value in drawn.items() if name.endswith("_gate")]
    assert len(gates) == 4 and min(gates) > 0


def test_frames_hold_a_picture_on_top_and_padding_below() -> None:
    full = VideoMllamaConfig()
    assert valid_patch_rows(full) == 23
    frames = clip_frames(full, 2)
    assert frames.shape == (2, 3, 560, 560) and frames.dtype == torch.uint8
    assert int(frames[:, :, 315:].max()) == 0 and float(frames[:, :, :315].float().std()) > 20
    assert not torch.equal(frames[0], frames[1])
    ids = prompt(full, 256, 64)
    assert len(ids) == 320 and ids.count(full.image_token_id) == 256 and max(ids) == full.image_token_id
