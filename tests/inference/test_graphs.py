"""Steps on static buffers and steps launched ahead give the tokens of plain steps, whatever sessions do."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from inference.cache.policies.policy import CachePolicy
from inference.cache.policies.text import TextWindow
from inference.cache.policies.window import SinkWindow
from inference.cache.session_cache import SessionCache
from inference.cache.store import KVStore
from inference.engine import StepEngine, Stepping, StepRequest
from inference.graphs import ahead as ahead_server
from inference.graphs.runner import BUCKETS, Feed, GraphRunner
from inference.graphs.tables import SessionTables
from inference.graphs.upload import Upload
from inference.model import layers
from inference.model.load import load_model
from inference.model.rows import PagedView, RowGroup
from inference.model.video_mllama import VideoMllama
from inference.sampling import Sampler, SamplingConfig, SamplingPath
from model.config import SwitchConfig
from tests.inference.checkpoints import random_tensors, tiny_config, write_checkpoint

CONFIG = tiny_config(vocab_size=40)
IMAGE = CONFIG.image_token_id
FRAMES = torch.randint(0, 256, (8, 3, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
SAMPLING = (
    SamplingConfig(),
    SamplingConfig(do_sample=True, temperature=1.5, seed=3),
    SamplingConfig(do_sample=True, top_k=5, top_p=0.9, seed=4),
    SamplingConfig(repetition_penalty=1.3),
    SamplingConfig(do_sample=True, repetition_penalty=0.8, silence_threshold=0.2, seed=5),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("graphs"), CONFIG, tensors=random_tensors(CONFIG, seed=3))


@pytest.fixture(scope="module")
def model(folder: Path) -> VideoMllama:
    return load_model(folder)


@dataclass(frozen=True)
class Move:
    """What a session does at a token boundary."""

    extra: tuple[int, ...] = ()
    """Ids fed behind the token."""
    replace: int | None = None
    """Feed this instead of the token."""
    act: str = ""
    """Done before: go on with a fork, put a fork aside, forget the oldest frame or the last row, take another sampler."""


@dataclass
class Plan:
    """A whole session."""

    prompt: list[int]
    sampling: int
    moves: list[Move] = field(default_factory=list)
    policy: CachePolicy | None = None


_TOKEN = st.one_of(st.integers(0, 39), st.integers(0, 39), st.just(IMAGE))
_PLAIN = st.just(Move())
_MOVE = st.builds(
    Move,
    extra=st.lists(_TOKEN, max_size=3).map(tuple),
    replace=st.one_of(st.none(), st.none(), st.integers(0, 39)),
    act=st.sampled_from(["", "", "", "fork", "aside", "evict", "rewind", "sampler"]),
)
_PLAN = st.builds(
    Plan,
    prompt=st.lists(_TOKEN, min_size=1, max_size=12),
    sampling=st.integers(0, len(SAMPLING) - 1),
    moves=st.lists(st.one_of(_PLAIN, _PLAIN, _PLAIN, _MOVE), max_size=12),
)


def _sampler(number: int) -> Sampler:
    return Sampler(SAMPLING[number], banned=[7, 8], silence_id=9, silenced=[10, 11])


def _session(engine: StepEngine, plan: Plan, ahead: bool, first: int) -> Stepping[tuple[list[int], torch.Tensor]]:
    """Runs a plan; every session sees other frames.

    Returns:
        Its tokens, and logits that tell whether what it keeps is right.
    """
    frames: Iterator[torch.Tensor] = (FRAMES[(first + i) % len(FRAMES)] for i in range(100))
    cache, sampler = engine.new_cache(policy=plan.policy), _sampler(plan.sampling)
    forks: list[SessionCache] = []
    said: list[int] = []

    def request(tokens: list[int]) -> StepRequest:
        count = tokens.count(IMAGE)
        pictures = torch.stack([next(frames) for _ in range(count)]) if count else None
        return StepRequest(cache, tokens, pictures, sampler=sampler, ahead=ahead)

    token = yield request(plan.prompt)
    for move in plan.moves:
        said.append(token)
        if move.act == "fork":
            forks.append(cache)
            cache = cache.fork()
        elif move.act == "aside":
            forks.append(cache.fork())
        elif move.act == "evict" and cache.frames > 1:
            cache.drop_frames(0, 1)
        elif move.act == "rewind" and cache.length > 2:
            cache.rewind(cache.length - 1, cache.frames)
        elif move.act == "sampler":
            sampler = _sampler((plan.sampling + 1) % len(SAMPLING))
        token = yield request([token if move.replace is None else move.replace, *move.extra])
    found = []
    for cache in [cache, *forks]:  # noqa: B020 (the others go on in the same way)
        said.append((yield request([12])))
        found.append((yield StepRequest(cache, [13])))
    return [*said, token], torch.stack(found)


def _run(engine: StepEngine, plans: list[Plan], ahead: bool) -> list[tuple[list[int], torch.Tensor]]:
    return engine.drive([_session(engine, plan, ahead, 3 * i) for i, plan in enumerate(plans)])


def _same(found: list[tuple[list[int], torch.Tensor]], expected: list[tuple[list[int], torch.Tensor]]) -> bool:
    assert [tokens for tokens, _ in found] == [tokens for tokens, _ in expected]
    for (_, ours), (_, theirs) in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    return True


@given(plans=st.lists(_PLAN, min_size=1, max_size=4))
@settings(max_examples=14)
def test_static_and_ahead_give_the_tokens_of_plain_steps(model: VideoMllama, plans: list[Plan]) -> None:
    expected = _run(StepEngine(model, graphs=False), plans, ahead=False)
    engine = StepEngine(model, graphs=True)
    assert _same(_run(engine, plans, ahead=False), expected)
    assert _same(_run(engine, plans, ahead=True), expected)


@given(plans=st.lists(_PLAN, min_size=1, max_size=2))
@settings(max_examples=10)
def test_ahead_with_the_switches_of_the_reference(folder: Path, plans: list[Plan]) -> None:
    switches = SwitchConfig(decode_query_rope="only_with_new_frames", no_visible_rows="attend_all")
    reference = load_model(folder, switches=switches)
    expected = _run(StepEngine(reference, graphs=False), plans, ahead=False)
    assert _same(_run(StepEngine(reference, graphs=True), plans, ahead=True), expected)


@given(
    rows=st.lists(st.lists(_TOKEN, min_size=1, max_size=30), min_size=1, max_size=5),
    cuts=st.integers(1, 4),
    prepared=st.booleans(),
)
@settings(max_examples=10)
def test_padded_logits_equal_eager_ones(model: VideoMllama, rows: list[list[int]], cuts: int, prepared: bool) -> None:
    """Also where a step has more rows or frames than a graph holds, and while pools and tables grow."""
    plain = StepEngine(model, graphs=False)
    runner = GraphRunner(model, KVStore(CONFIG, model.device, model.dtype, positions=1, frames=1), widths=(1, 1))
    if prepared:
        runner.prepare([128, 256], [Sampler(SamplingConfig()) for _ in rows])
    ours, theirs = [runner.store.new_cache() for _ in rows], [plain.new_cache() for _ in rows]
    for part in range(cuts):
        feeds, expected = [], []
        for session, tokens in enumerate(rows):
            states = model.encode(FRAMES[: tokens.count(IMAGE) % 9]) if IMAGE in tokens else None
            if states is not None and len(states) != tokens.count(IMAGE):
                tokens = [5] * len(tokens)
                states = None
            own, other = ours[session], theirs[session]
            feeds.append(Feed(plain.group(own, tokens, states), Sampler(SamplingConfig())))
            own.reserve(len(tokens), 0 if states is None else len(states))
            expected.append(plain.step(other, tokens, states))
        runner.launch(feeds)
        torch.testing.assert_close(runner.logits[: len(rows)], torch.cat(expected), atol=1e-5, rtol=0)
        assert [(c.length, c.frames) for c in ours] == [(c.length, c.frames) for c in theirs], part


@pytest.mark.parametrize("rows", [65, 128, 200, 256, 257])
def test_prompts_of_up_to_256_rows_go_through_a_prepared_graph(model: VideoMllama, rows: int) -> None:
    """With more frames than a graph holds, whose keys and values are written before."""
    plain, engine, bare = StepEngine(model, graphs=False), StepEngine(model, graphs=True), StepEngine(model, graphs=True)
    engine.prepare([_sampler(1)])
    assert engine.server is not None
    engine.server.runner.run_padding(300, SamplingPath())  # as a GPU does to compile; nothing of it is left
    prompt = [1, *[IMAGE] * 8, *[2] * (rows - 12), IMAGE, 3, 4]
    frames = torch.cat([FRAMES, FRAMES[:1]])
    answers = []
    for each in (plain, engine, bare):
        cache, sampler = each.new_cache(), _sampler(1)
        (token,) = each.serve([StepRequest(cache, prompt, frames, sampler=sampler)])
        answers.append([token, *each.serve([StepRequest(cache, [token], sampler=sampler)])])
    assert answers[1] == answers[0] and answers[2] == answers[0]
    assert bare.server is not None
    runner = engine.server.runner
    assert (runner.replayed, runner.eager) == ((2, 0) if rows <= 256 else (1, 1))
    # Without preparation nobody waits for a capture in the middle of a stream.
    assert (bare.server.runner.replayed, bare.server.runner.eager) == (1, 1)


def test_policies_forget_the_same_with_steps_ahead(model: VideoMllama) -> None:
    """Frames and rows go, positions are numbered anew, while steps are under way."""
    policy = CachePolicy(cross=SinkWindow(1, 2), text=TextWindow(0, 20), position_limit=160, step_rows=30, step_frames=2)
    moves = [Move(extra=(IMAGE,)) if i % 7 == 3 else Move(extra=(5, 6)) if i % 3 == 1 else Move() for i in range(80)]
    plans = [Plan([1, IMAGE, 2], 1, moves, policy), Plan([3] * 29 + [IMAGE], 4, moves, policy)]

    def run(graphs: bool) -> list[tuple[list[int], torch.Tensor]]:
        store = KVStore(CONFIG, model.device, model.dtype, raw_keys=True)
        return _run(StepEngine(model, store, graphs=graphs), plans, ahead=graphs)

    assert _same(run(True), run(False))


def test_a_session_that_speaks_always_has_a_step_under_way(model: VideoMllama) -> None:
    engine = StepEngine(model, graphs=True)
    assert engine.server is not None
    _run(engine, [Plan([1, IMAGE, 2], 1, [Move()] * 20)], ahead=True)
    assert (engine.server.launched, engine.server.used) == (22, 20)
    # A frame mid-sentence costs the sample that was drawn without it, not the row.
    engine = StepEngine(model, graphs=True)
    assert engine.server is not None
    _run(engine, [Plan([1, IMAGE, 2], 1, [Move(), Move(extra=(IMAGE,)), Move()])], ahead=True)
    assert (engine.server.launched, engine.server.used) == (5, 2)


def test_more_sessions_than_one_launch_holds(model: VideoMllama) -> None:
    plans = [Plan([i % 40, (i // 40) % 40], 0, [Move()] * 2) for i in range(BUCKETS[-1] + 5)]
    expected = _run(StepEngine(model, graphs=False), plans, ahead=False)
    assert _same(_run(StepEngine(model, graphs=True), plans, ahead=True), expected)


def test_a_session_that_lost_its_place_in_the_tables_is_not_ahead(model: VideoMllama) -> None:
    """Its last token was kept there."""
    engine = StepEngine(model, graphs=True)
    assert engine.server is not None
    runner = engine.server.runner
    runner.tables = SessionTables(2, (8, 8), model.device, Upload(model.device))
    plain = StepEngine(model, graphs=False)
    said: list[list[list[int]]] = []
    for each in (engine, plain):
        sessions = [(each.new_cache(), Sampler(SAMPLING[1])) for _ in range(3)]
        tokens = [[number + 20] for number in range(3)]
        for turn in range(9):
            cache, sampler = sessions[turn % 3]
            tokens[turn % 3] += each.serve([StepRequest(cache, [tokens[turn % 3][-1]], sampler=sampler, ahead=True)])
        said.append(tokens)
    assert said[0] == said[1]
    assert engine.server.used == 0


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_more_sessions_than_the_tables_have_rows(
    model: VideoMllama, order: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sessions of one step take the rows from each other, so that their last tokens are lost: those do not go ahead."""
    monkeypatch.setattr(ahead_server, "MOST_SESSIONS", 1)
    said: list[list[int]] = []
    for graphs in (True, False):
        engine = StepEngine(model, graphs=graphs)
        if engine.server is not None:
            engine.server.runner.tables = SessionTables(2, (8, 8), model.device, Upload(model.device))
        sessions = [(engine.new_cache(), Sampler(SAMPLING[1])) for _ in order]
        said.append([number + 20 for number in range(len(order))])
        # Some rounds leave sessions out, so that those of the next round are partly ahead and partly not.
        for chosen in (order[:2], order, order[1:], order[:2], order[2:] + order[:2], order):
            requests = [StepRequest(sessions[i][0], [said[-1][i]], sampler=sessions[i][1], ahead=True) for i in chosen]
            for i, token in zip(chosen, engine.serve(requests), strict=True):
                said[-1][i] = token
        said[-1] += [int(engine.step(cache, [1]).argmax()) for cache, _ in sessions]
    assert said[0] == said[1]


def test_a_plain_step_makes_what_was_launched_ahead_void(model: VideoMllama) -> None:
    """The row that was written ahead is written over; the counts come back to where they were."""
    answers = []
    for ahead in (False, True):
        engine = StepEngine(model, graphs=True)
        cache, sampler = engine.new_cache(), Sampler(SamplingConfig())
        (token,) = engine.serve([StepRequest(cache, [1, 2, 3], sampler=sampler, ahead=ahead)])
        engine.step(cache, [30])
        cache.rewind(cache.length - 1, cache.frames)
        answers.append(engine.serve([StepRequest(cache, [token, 4], sampler=sampler, ahead=ahead)]))
        answers[-1] += engine.serve([StepRequest(cache, [5], sampler=sampler)])
    assert answers[0] == answers[1]


def _attention_of_fixed_shape(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scales: torch.Tensor | None, view: PagedView
) -> torch.Tensor:
    """Paged attention over all pages that the tables have room for, without a look at a value: what the kernel of a GPU does."""
    count, heads, dim = queries.shape
    pages = view.tables[view.session.long()].long()  # [N, W]
    k, v = (part[pages].flatten(1, 2).repeat_interleave(heads // part.shape[2], 2) for part in (keys, values))
    scores = torch.einsum("nhd,nshd->nhs", queries, k) / dim**0.5
    unseen = torch.arange(k.shape[1])[None, None] >= view.limits[:, None, None]
    weights = scores.masked_fill(unseen, float("-inf")).softmax(-1).masked_fill(unseen, 0)
    return torch.einsum("nhs,nshd->nhd", weights, v).reshape(count, heads * dim)


class _NothingFromTheHost(TorchDispatchMode):
    """Refuses constants that Python makes: on a GPU each would be a copy that a capture forbids."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func is not torch.ops.aten.lift_fresh.default, "lift_fresh: a constant made on the host"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("sampling", [0, 2, 4])
def test_no_shape_and_no_branch_of_a_static_step_depends_on_data(
    model: VideoMllama, sampling: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run on tensors that have no values: reading one, or a shape that depends on one, is an error. So a graph can hold it."""
    monkeypatch.setattr(layers, "paged_attention", _attention_of_fixed_shape)
    runner = GraphRunner(model, KVStore(CONFIG, model.device, model.dtype))
    cache = runner.store.new_cache()
    cache.reserve(3, 1)
    group = RowGroup(cache, [1, IMAGE, 2], [0, 1, 1], torch.zeros(1, 5, 32), [1])
    with FakeTensorMode(allow_non_fake_inputs=True), pytest.raises(DataDependentOutputException):
        runner.logits.sum().item()
    runner.prepare([3], [_sampler(sampling)])
    work = [*runner._frame_graphs.values(), *runner._graphs.values()]
    assert len(work) == 5
    with torch.inference_mode(), FakeTensorMode(allow_non_fake_inputs=True), _NothingFromTheHost():
        for one in work:
            one()
    with pytest.raises(AssertionError, match="lift_fresh"), _NothingFromTheHost():
        torch.tensor([1.0]) + runner.logits[0, :1]
    # The attention above is the real one.
    runner.launch([Feed(group, _sampler(sampling))])
    plain = StepEngine(model, graphs=False)
    expected = plain.step(plain.new_cache(), group.tokens, group.frame_states)
    torch.testing.assert_close(runner.logits[:1], expected, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def wide_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Heads of 16, as matrix instructions of a GPU want them."""
    config = dataclasses.replace(CONFIG, text=dataclasses.replace(CONFIG.text, hidden_size=64, intermediate_size=96))
    return write_checkpoint(tmp_path_factory.mktemp("wide"), config, tensors=random_tensors(config, seed=3))


@pytest.mark.gpu
def test_graphs_on_a_gpu_equal_eager_steps_and_allocate_nothing(wide_folder: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    model = load_model(wide_folder, device="cuda")
    plain, engine = StepEngine(model, graphs=False), StepEngine(model, graphs=True)
    assert engine.server is not None
    states = model.encode(FRAMES[:2])
    prompt = [1, IMAGE, 2, IMAGE, 3]
    ours, theirs, sampler = engine.new_cache(), plain.new_cache(), Sampler(SamplingConfig())
    (token,) = engine.serve([StepRequest(ours, prompt, features=states, sampler=sampler)])
    torch.testing.assert_close(engine.server.runner.logits[:1], plain.step(theirs, prompt, states), atol=1e-4, rtol=0)
    for _ in range(4):
        fed = token
        (token,) = engine.serve([StepRequest(ours, [fed], sampler=sampler)])
        torch.testing.assert_close(engine.server.runner.logits[:1], plain.step(theirs, [fed]), atol=1e-4, rtol=0)
    for _ in range(3):
        (token,) = engine.serve([StepRequest(ours, [token], sampler=sampler, ahead=True)])
    before = torch.cuda.memory_stats()["allocation.all.allocated"]
    for _ in range(16):
        (token,) = engine.serve([StepRequest(ours, [token], sampler=sampler, ahead=True)])
    assert torch.cuda.memory_stats()["allocation.all.allocated"] == before


@pytest.mark.gpu
def test_a_thread_of_its_own_computes_on_the_models_gpu(wide_folder: Path) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    engine, tokens = StepEngine(load_model(wide_folder, device="cuda:1")), list[int]()
    sampler = Sampler(SamplingConfig())
    thread = threading.Thread(
        target=lambda: tokens.extend(engine.serve([StepRequest(engine.new_cache(), [1, 2, 3], sampler=sampler)]))
    )
    thread.start()
    thread.join(120)
    host = StepEngine(load_model(wide_folder))
    assert tokens == host.serve([StepRequest(host.new_cache(), [1, 2, 3], sampler=Sampler(SamplingConfig()))])


@pytest.fixture
def no_waiting() -> Iterator[Callable[[], None]]:
    """Once called, an operation by which the host waits for the device is an error."""
    yield lambda: torch.cuda.set_sync_debug_mode("error")
    if torch.cuda.is_available():
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.parametrize("sampling", [0, 2, 4])
def test_steps_on_a_gpu_wait_for_the_device_nowhere(wide_folder: Path, sampling: int, no_waiting: Callable[[], None]) -> None:
    """Prompts of any length and many frames included; tokens alone are awaited, by their events."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    model = load_model(wide_folder, device="cuda")
    plain, engine = StepEngine(model, graphs=False), StepEngine(model, graphs=True)
    engine.prepare([_sampler(sampling)])
    states = model.encode(torch.cat([FRAMES, FRAMES]))
    steps = [([1, *[IMAGE] * 3, 2], 3), ([3] * 100, 0), ([4, *[IMAGE] * 9, 5], 9), ([6] * 200, 0), ([7] * 400, 0), ([8], 0)]
    said: list[list[int]] = []
    for each in (engine, plain):
        cache, sampler = each.new_cache(), _sampler(sampling)
        each.serve([StepRequest(cache.fork(), [1] * 600, sampler=_sampler(sampling))])  # its kernels are compiled here
        if each is engine:
            no_waiting()
        said.append([])
        for rows, count in steps:
            features = states[:count] if count else None
            said[-1] += each.serve([StepRequest(cache, rows, features=features, sampler=sampler, ahead=True)])
            said[-1] += each.serve([StepRequest(cache, [said[-1][-1]], sampler=sampler, ahead=True)])
        torch.cuda.set_sync_debug_mode("default")
    assert said[0] == said[1]
    assert engine.server is not None and engine.server.runner.eager == 2
    # Eager steps of rows that want logits do not wait either.
    cache = plain.new_cache()
    no_waiting()
    plain.step(cache, [1, IMAGE, 2], states[:1])
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.parametrize("sampling", range(len(SAMPLING)))
def test_tokens_on_a_gpu_are_the_same_with_steps_ahead(wide_folder: Path, sampling: int) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    model = load_model(wide_folder, device="cuda")
    frame, act = Move(extra=(IMAGE,)), Move(act="evict")
    moves = [Move(), Move(), frame, Move(), act, Move(), Move(act="fork"), Move(replace=3), frame, frame, Move(), Move()]
    plans = [Plan([1, IMAGE, 2], sampling, moves), Plan([4] * 70, sampling, moves[::-1]), Plan([5], sampling, moves[3:])]
    expected = _run(StepEngine(model, graphs=False), plans, ahead=False)
    found = _run(StepEngine(model, graphs=True), plans, ahead=True)
    assert [tokens for tokens, _ in found] == [tokens for tokens, _ in expected]
    for (_, ours), (_, theirs) in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.gpu
def test_graphs_on_a_gpu_are_captured_anew_when_pools_and_tables_grow(wide_folder: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    model = load_model(wide_folder, device="cuda")
    moves = [Move(extra=(IMAGE,)), Move(extra=tuple([5] * 40)), Move(), Move(extra=(IMAGE, IMAGE)), Move(extra=(6,) * 50)] * 2
    plans = [Plan([1, IMAGE, 2], 1, moves), Plan([4] * 30, 3, moves[::-1])]
    expected = _run(StepEngine(model, graphs=False), plans, ahead=False)
    engine = StepEngine(model, KVStore(model.config, model.device, model.dtype, positions=1, frames=1), graphs=True)
    assert engine.server is not None
    engine.server.runner.tables = SessionTables(8, (1, 1), model.device, engine.server.runner._upload)
    assert _same(_run(engine, plans, ahead=True), expected)
    assert engine.store.cross_pool.generation > 1 and engine.server.runner.tables.generation > 2
