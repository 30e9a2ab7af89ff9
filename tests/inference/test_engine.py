"""Cached decoding equals the whole sequence computed at once, however it is portioned."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inference.engine import StepEngine, Stepping, StepRequest
from inference.model.load import load_model
from model.config import SwitchConfig, VideoMllamaConfig
from model.errors import InputError
from tests.inference.checkpoints import random_tensors, tiny_config, write_checkpoint
from tests.inference.oracle import full_forward

CONFIG = tiny_config(vocab_size=40)
WEIGHTS = random_tensors(CONFIG, seed=3)
IMAGE = CONFIG.image_token_id
FRAMES = torch.randint(0, 256, (12, 3, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))


def _with_switches(switches: SwitchConfig) -> VideoMllamaConfig:
    return dataclasses.replace(CONFIG, switches=switches)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("engine"), CONFIG, tensors=WEIGHTS)


@st.composite
def portions(draw: st.DrawFn) -> list[list[int]]:
    """A session's tokens in portions; at most as many image tokens as there are frames."""
    tokens = draw(st.lists(st.one_of(st.integers(0, 39), st.just(IMAGE)), min_size=1, max_size=24))
    count = 0
    for i, token in enumerate(tokens):
        count += token == IMAGE
        if count > FRAMES.shape[0]:
            tokens[i], count = 7, count - 1
    cuts = sorted(draw(st.sets(st.integers(1, len(tokens)), max_size=len(tokens))) | {len(tokens)})
    return [tokens[a:b] for a, b in zip([0, *cuts], cuts, strict=False)]


@given(
    steps=portions(),
    rotation=st.sampled_from(["always", "only_with_new_frames"]),
    blind=st.sampled_from(["skip", "zero", "attend_all"]),
)
def test_any_portioning_equals_the_whole(folder: Path, steps: list[list[int]], rotation: str, blind: str) -> None:
    switches = SwitchConfig(decode_query_rope=rotation, no_visible_rows=blind)
    engine = StepEngine(load_model(folder, switches=switches))
    cache = engine.new_cache(positions=4, frames=1)
    rows, rotated, reach = [], [], []
    for tokens in steps:
        new = tokens.count(IMAGE)
        states = engine.encode(FRAMES[cache.frames : cache.frames + new]) if new else None
        rows.append(engine.step(cache, tokens, states, every_row=True))
        rotated += [rotation == "always" or new > 0] * len(tokens)
        reach += [cache.frames] * len(tokens)
    flat = [token for tokens in steps for token in tokens]
    assert (cache.length, cache.frames) == (len(flat), flat.count(IMAGE))
    states = engine.encode(FRAMES[: cache.frames])
    expected = full_forward(_with_switches(switches), WEIGHTS, flat, states, rotated, reach)
    torch.testing.assert_close(torch.cat(rows), expected.float(), atol=1e-5, rtol=0)


def test_correct_switches_do_not_depend_on_the_portioning(folder: Path) -> None:
    engine = StepEngine(load_model(folder))
    tokens = [1, 2, IMAGE, 3, IMAGE, IMAGE, 4, 5, 6, IMAGE, 7]
    states = engine.encode(FRAMES[:4])
    whole = engine.step(engine.new_cache(), tokens, states, every_row=True)
    cache, rows, frame = engine.new_cache(positions=1, frames=1), [], 0
    for token in tokens:
        new = int(token == IMAGE)
        rows.append(engine.step(cache, [token], states[frame : frame + new] if new else None))
        frame += new
    torch.testing.assert_close(torch.cat(rows), whole, atol=1e-5, rtol=0)


def test_reference_rotation_changes_the_logits_of_text_steps(folder: Path) -> None:
    results = []
    for rotation in ("always", "only_with_new_frames"):
        engine = StepEngine(load_model(folder, switches=SwitchConfig(decode_query_rope=rotation)))
        cache = engine.new_cache()
        engine.step(cache, [1, 2, 3, 4, IMAGE], engine.encode(FRAMES[:1]))
        results.append(engine.step(cache, [5]))
    assert (results[0] - results[1]).abs().max() > 1e-3


def test_rewind_forgets_rows_and_frames(folder: Path) -> None:
    engine = StepEngine(load_model(folder))
    cache = engine.new_cache()
    engine.step(cache, [1, IMAGE, 2], engine.encode(FRAMES[:1]))
    before = (cache.length, cache.frames)
    first = engine.step(cache, [3, IMAGE], engine.encode(FRAMES[1:2]))
    cache.rewind(*before)
    engine.step(cache, [9, IMAGE, 9], engine.encode(FRAMES[2:3]))
    cache.rewind(*before)
    assert torch.equal(engine.step(cache, [3, IMAGE], engine.encode(FRAMES[1:2])), first)
    with pytest.raises(InputError, match="only shortens"):
        cache.rewind(99, 0)


def test_text_only_session_never_touches_cross_layers(folder: Path) -> None:
    engine = StepEngine(load_model(folder))
    got = engine.step(engine.new_cache(), [1, 2, 3], every_row=True)
    none = torch.empty(0, CONFIG.vision.tokens_per_frame, CONFIG.text.hidden_size)
    expected = full_forward(_with_switches(SwitchConfig()), WEIGHTS, [1, 2, 3], none, [True] * 3, [0] * 3)
    torch.testing.assert_close(got, expected.float(), atol=1e-5, rtol=0)


def test_fp64_agrees_far_below_fp32(folder: Path) -> None:
    engine = StepEngine(load_model(folder, dtype=torch.float64))
    tokens = [1, IMAGE, 2, IMAGE, 3]
    states = engine.encode(FRAMES[:2])
    got = engine.step(engine.new_cache(), tokens, states, every_row=True)
    expected = full_forward(_with_switches(SwitchConfig()), WEIGHTS, tokens, states, [True] * 5, [2] * 5)
    torch.testing.assert_close(got, expected.float(), atol=5e-6, rtol=0)


def test_bf16_runs_and_stays_near(folder: Path) -> None:
    tokens = [1, IMAGE, 2, IMAGE, 3]
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        engine = StepEngine(load_model(folder, dtype=dtype))
        rows.append(engine.step(engine.new_cache(), tokens, engine.encode(FRAMES[:2]), every_row=True))
    assert rows[1].dtype == torch.float32
    assert (rows[0] - rows[1]).abs().mean() < 0.05 * rows[0].abs().mean() + 0.05


@pytest.mark.parametrize(
    ("tokens", "frames", "message"),
    [
        ([], 0, "no tokens"),
        ([IMAGE], 0, "1 image tokens and 0 frames"),
        ([1], 1, "0 image tokens and 1 frames"),
        ([41], 0, "outside"),
    ],
)
def test_wrong_steps_are_refused(folder: Path, tokens: list[int], frames: int, message: str) -> None:
    engine = StepEngine(load_model(folder))
    cache = engine.new_cache()
    with pytest.raises(InputError, match=message):
        engine.step(cache, tokens, engine.encode(FRAMES[:frames]) if frames else None)
    assert (cache.length, cache.frames) == (0, 0)


@given(
    sessions=st.lists(portions(), min_size=1, max_size=4),
    rotation=st.sampled_from(["always", "only_with_new_frames"]),
    blind=st.sampled_from(["skip", "attend_all"]),
)
def test_sessions_in_lockstep_do_not_touch_each_other(
    folder: Path, sessions: list[list[list[int]]], rotation: str, blind: str
) -> None:
    engine = StepEngine(load_model(folder, switches=SwitchConfig(decode_query_rope=rotation, no_visible_rows=blind)))

    def session(steps: list[list[int]], first: int) -> Stepping[torch.Tensor]:
        cache = engine.new_cache(positions=2, frames=1)
        rows = []
        for tokens in steps:
            new = tokens.count(IMAGE)
            # Every session sees other frames.
            frames = torch.stack([FRAMES[(first + cache.frames + i) % len(FRAMES)] for i in range(new)]) if new else None
            rows.append((yield StepRequest(cache, tokens, frames)))
        return torch.stack(rows)

    together = engine.drive([session(steps, i) for i, steps in enumerate(sessions)])
    for i, steps in enumerate(sessions):
        (alone,) = engine.drive([session(steps, i)])
        torch.testing.assert_close(together[i], alone, atol=1e-5, rtol=0)


def test_one_session_cannot_be_fed_twice_in_one_step(folder: Path) -> None:
    engine = StepEngine(load_model(folder))
    cache = engine.new_cache()
    with pytest.raises(InputError, match="occurs twice"):
        engine.serve([StepRequest(cache, [1]), StepRequest(cache, [2])])


def test_a_session_may_end_without_a_step(folder: Path) -> None:
    def nothing() -> Stepping[str]:
        return "done"
        yield  # makes this a generator

    assert StepEngine(load_model(folder)).drive([nothing(), nothing()]) == ["done", "done"]
