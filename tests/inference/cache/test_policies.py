"""Logits under every policy are those of the dense decoder that sees exactly what the policy keeps."""

from __future__ import annotations

import argparse

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.cache.frame_page import FramePage, PageKind
from inference.cache.policies import CachePolicy, add_policy_arguments, parse_policy, policy_from
from inference.cache.policies.full import Full
from inference.cache.policies.offload import Offload
from inference.cache.policies.operations import DropFrames
from inference.cache.policies.pooled import PooledAged
from inference.cache.policies.text import TextWindow
from inference.cache.policies.window import SinkWindow, Window
from inference.cache.store import KVStore
from inference.engine import StepEngine
from inference.model.load import load_model
from inference.model.video_mllama import VideoMllama
from model.errors import InputError
from tests.inference.cache.streamed_oracle import PlainKeeper, Sight, streamed_forward
from tests.inference.checkpoints import random_tensors, tiny_config, write_checkpoint

CONFIG = tiny_config(vocab_size=40)
WEIGHTS = random_tensors(CONFIG, seed=3)
IMAGE = CONFIG.image_token_id
FRAMES = torch.randint(0, 256, (40, 3, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> VideoMllama:
    return load_model(write_checkpoint(tmp_path_factory.mktemp("policies"), CONFIG, tensors=WEIGHTS))


def make_engine(model: VideoMllama, *, raw_keys: bool = True, rows_per_page: int = 4) -> StepEngine:
    store = KVStore(CONFIG, torch.device("cpu"), torch.float32, raw_keys=raw_keys, rows_per_page=rows_per_page)
    return StepEngine(model, store)


@st.composite
def policies(draw: st.DrawFn) -> tuple[CachePolicy, PlainKeeper]:
    kind = draw(st.sampled_from(["full", "window", "sink_window", "pooled"]))
    window, sink, batches, class_pages = (draw(st.integers(1, 3)) for _ in range(4))
    cross = {
        "full": Full(),
        "window": Window(window),
        "sink_window": SinkWindow(sink, window),
        "pooled": PooledAged(window, batches, class_pages),
    }[kind]
    plain = PlainKeeper(kind, window, sink, batches, class_pages)
    if kind == "full" or draw(st.booleans()):
        return CachePolicy(cross=cross), plain
    text = TextWindow(draw(st.integers(0, 5)), draw(st.integers(1, 9)))
    plain.text_sink, plain.text_window = text.sink, text.window
    if draw(st.booleans()):
        return CachePolicy(cross=cross, text=text), plain
    most = cross.most_pages(5, 3)
    assert most is not None
    limit = text.most_rows(4, 6) + most + 6 + draw(st.integers(0, 12))
    plain.renumber_at = limit - 6
    return CachePolicy(cross=cross, text=text, position_limit=limit, step_rows=6, step_frames=3), plain


@settings(max_examples=15)
@given(chosen=policies(), data=st.data())
def test_logits_are_those_of_what_is_kept(
    model: VideoMllama, chosen: tuple[CachePolicy, PlainKeeper], data: st.DataObject
) -> None:
    policy, plain = chosen
    engine = make_engine(model)
    cache = engine.new_cache(policy=policy)
    tokens: list[int] = []
    sights: list[Sight] = []
    rows = []
    frames = 0
    every = engine.encode(FRAMES)
    for _ in range(data.draw(st.integers(4, 14))):
        new = min(data.draw(st.integers(0, 3)), len(FRAMES) - frames)
        step = data.draw(st.permutations([IMAGE] * new + data.draw(st.lists(st.integers(0, 39), min_size=1, max_size=3))))
        rows.append(engine.step(cache, step, every[frames : frames + new] if new else None, every_row=True))
        for token in step:
            if token == IMAGE:
                plain.whole.append((frames, plain.next_position))
                frames += 1
            plain.rows.append((len(tokens), plain.next_position))
            sights.append(Sight(plain.next_position, list(plain.rows), plain.tokens()))
            tokens.append(token)
            plain.next_position += 1
        plain.settle()
        assert (cache.length, cache.next_position, cache.renumberings) == (
            len(plain.rows),
            plain.next_position,
            plain.renumberings,
        )
        assert cache.frames * 5 == len(plain.tokens())
        if policy.position_limit is not None:
            assert cache.next_position + 6 <= policy.position_limit
            bounds = policy.bounds(4, 5, max_rows=10**6, max_frames=10**6)
            assert len(cache.self_table) <= bounds.row_pages and len(cache.cross_table) <= bounds.frame_pages
    expected = streamed_forward(CONFIG, WEIGHTS, tokens, every, sights)
    torch.testing.assert_close(torch.cat(rows), expected.float(), atol=2e-5, rtol=0)
    cache.release()
    assert engine.store.used_bytes == 0


def test_a_settled_session_has_nothing_left_to_do(model: VideoMllama) -> None:
    engine = make_engine(model)
    policy = CachePolicy(cross=Window(2), text=TextWindow(4, 6), position_limit=40, step_rows=4, step_frames=2)
    cache = engine.new_cache(policy=policy)
    for i in range(60):
        engine.step(cache, [i % 40, IMAGE], engine.encode(FRAMES[i % 40][None]))
        before = (cache.version, cache.renumberings, cache.length, cache.frames, list(cache.row_positions))
        assert cache.policy is not None
        cache.policy.settle(cache)
        assert before == (cache.version, cache.renumberings, cache.length, cache.frames, list(cache.row_positions))
    assert cache.renumberings > 1


def test_a_frame_in_the_sink_is_still_seen_after_everything_else_is_gone(model: VideoMllama) -> None:
    """Other pixels in the sink change what is said a hundred frames later; in the frames between they change nothing."""
    engine = make_engine(model)
    policy = CachePolicy(cross=SinkWindow(1, 3), text=TextWindow(4, 8), position_limit=64, step_rows=8)
    # What rows took from the frames lives on in their own keys and values: those rows are long gone too.
    found = {}
    for changed in (None, 0, 30):
        cache = engine.new_cache(policy=policy)
        for i in range(60):
            frame = FRAMES[39] if i == changed else FRAMES[i % 30]
            logits = engine.step(cache, [7, IMAGE], engine.encode(frame[None]))
        assert cache.renumberings > 1 and [page.number for page in cache.pages] == [0, 57, 58, 59]
        found[changed] = logits
    assert (found[0] - found[None]).abs().max() > 1e-3
    text_path = (found[30] - found[None]).abs().max()
    assert text_path < (found[0] - found[None]).abs().max()


def test_frames_put_away_come_back_unchanged(model: VideoMllama) -> None:
    engine = make_engine(model, raw_keys=False)
    cache = engine.new_cache(policy=CachePolicy(cross=Offload(window=2, recalled=2, capacity=6)))
    twin = engine.new_cache()
    for i in (3, 9, 4, 3, 5, 6, 7, 8, 10, 3):
        states = engine.encode(FRAMES[i][None])
        engine.step(cache, [1, IMAGE], states)
        engine.step(twin, [1, IMAGE], states)
    assert cache.frames == 2 and [frame.page.number for frame in cache.archive] == [2, 3, 4, 5, 6, 7]
    cache.prompt_boundary()
    # The newest frame is the third picture; it was put away as number 3 (number 0 is beyond the capacity).
    assert cache.frames == 4 and 3 in [page.number for page in cache.pages[:2]]
    assert [page.kind for page in cache.pages] == [PageKind.RECALLED] * 2 + [PageKind.FRAME] * 2
    for layer in range(2):
        for got, want in zip(
            cache.cross_pool.gather(layer, cache.cross_table, 20),
            twin.cross_pool.gather(layer, twin.cross_table, 50),
            strict=True,
        ):
            numbers = [page.number for page in cache.pages]
            assert torch.equal(got.view(4, 5, 2, 8)[:3], want.view(10, 5, 2, 8)[numbers[:3]])
    first = {page.number for page in cache.pages[:2]}
    engine.step(cache, [2, IMAGE], engine.encode(FRAMES[7][None]))
    assert cache.frames == 4
    cache.prompt_boundary()
    assert 6 in {page.number for page in cache.pages[:2]} and cache.frames == 4
    assert first != {page.number for page in cache.pages[:2]}
    used = engine.store.cross_pool.allocator.used_pages
    fork = cache.fork()
    assert engine.store.cross_pool.allocator.used_pages == used
    fork.prompt_boundary()
    assert fork.frames == cache.frames


def test_frames_from_before_a_renumbering_stand_right_before_the_window(model: VideoMllama) -> None:
    engine = make_engine(model)
    policy = CachePolicy(cross=Offload(window=2, recalled=3), text=TextWindow(0, 8), position_limit=50, step_rows=8)
    cache = engine.new_cache(policy=policy)
    for i in range(40):
        engine.step(cache, [1, 2, IMAGE], engine.encode(FRAMES[i % 20][None]))
    assert cache.renumberings
    cache.prompt_boundary()
    numbers, places = [page.number for page in cache.pages], cache.frame_positions
    assert numbers == sorted(numbers) and numbers[-2:] == [38, 39] and len(numbers) == 5
    assert places == sorted(set(places)) and places[2] + 1 == places[3]
    assert cache.next_position + policy.step_rows <= 50
    assert torch.isfinite(engine.step(cache, [3])).all()


def _pages(times: list[float | None]) -> list[FramePage]:
    return [FramePage((i,), i, time=time) for i, time in enumerate(times)]


def test_a_window_of_seconds_reads_the_times_of_the_stream() -> None:
    window = Window(100, seconds=10.0)
    assert window.decide(_pages([0.0, 1.0, 10.5, 11.0]), 5) == DropFrames(0, 2)
    assert window.decide(_pages([1.5, 2.0, 11.0]), 5) is None
    assert window.decide(_pages([0.0, 50.0]), 5) == DropFrames(0, 1)
    assert window.decide(_pages([None] * 3), 5) is None
    assert Window(2, seconds=10.0).decide(_pages([1.0, 1.1, 1.2]), 5) == DropFrames(0, 1)


def test_times_of_frames_reach_their_pages(model: VideoMllama) -> None:
    engine = make_engine(model)
    cache = engine.new_cache(policy=CachePolicy(cross=Window(50, seconds=3.0)))
    cache.frame_times += [0.0, 0.5, 1.0]
    engine.step(cache, [IMAGE, IMAGE, 3, IMAGE], engine.encode(FRAMES[:3]))
    cache.frame_times.append(3.75)
    engine.step(cache, [IMAGE], engine.encode(FRAMES[3:4]))
    assert [page.time for page in cache.pages] == [1.0, 3.75]


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("full", Full()),
        ("window:60", Window(60)),
        ("window:60s", Window(240, 60.0)),
        ("window:7.5s:90", Window(90, 7.5)),
        ("sink_window:4:60", SinkWindow(4, 60)),
        ("pooled:60", PooledAged(60)),
        ("pooled:60:2:0", PooledAged(60, 2, 0)),
        ("offload:60:16", Offload(60, 16)),
        ("offload:60:16:99", Offload(60, 16, 99)),
    ],
)
def test_the_command_line_form(text: str, policy: object) -> None:
    assert parse_policy(text) == policy
    assert parse_policy(parse_policy(text).spell()) == policy


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cross_policy", "windw:3"], "use one of full; window:FRAMES"),
        (["--cross_policy", "window"], "write it as window:FRAMES or"),
        (["--cross_policy", "window:-3"], "with whole numbers"),
        (["--cross_policy", "window:nans"], "with whole numbers"),
        (["--cross_policy", "window:0"], "at least 1 frame"),
        (["--cross_policy", "window:0s"], "at least 1 frame|above 0"),
        (["--cross_policy", "sink_window:4"], "sink_window:SINK:FRAMES"),
        (["--cross_policy", "offload:60:0"], "at least 1"),
        (["--cross-policy", "full:1"], "write it as full"),
        (["--text_window", "64"], "SINK:WINDOW"),
        (["--text-window", "0:0"], "WINDOW of 1 or more"),
        (["--position_limit", "4096"], "give a text window"),
    ],
)
def test_wrong_arguments_say_what_is_right(arguments: list[str], message: str) -> None:
    parser = argparse.ArgumentParser()
    add_policy_arguments(parser)
    with pytest.raises(InputError, match=message):
        policy_from(parser.parse_args(arguments))


def test_limits_that_cannot_be_kept_are_refused(model: VideoMllama) -> None:
    engine = make_engine(model)
    small = CachePolicy(cross=Window(3), text=TextWindow(4, 8), position_limit=20, step_rows=4, step_frames=1)
    with pytest.raises(InputError, match="position_limit is 20, but what the policy keeps may take 27 positions"):
        engine.new_cache(policy=small)
    with pytest.raises(InputError, match="another --cross_policy than full"):
        engine.new_cache(policy=CachePolicy(text=TextWindow(4, 8), position_limit=400))
    with pytest.raises(InputError, match="needs unrotated keys"):
        make_engine(model, raw_keys=False).new_cache(policy=CachePolicy(cross=PooledAged(3)))
