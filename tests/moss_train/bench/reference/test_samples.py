"""The same samples alone and in packs; what our side may keep."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.packing.select import select_packs
from model.config import VideoMllamaConfig
from model.errors import InputError
from moss_train.bench.packs import PackSample
from moss_train.bench.reference.budget import AGAIN, FREE_GIB, MARGIN_GIB, MIXED_GIB, OTHER_GIB, again_frames, keep_gib, limit_gib
from moss_train.bench.reference.cases import Options, make_cases, model_of
from moss_train.bench.reference.published import PUBLISHED
from moss_train.bench.reference.run import Comparison
from moss_train.bench.reference.samples import PACKS, alone, mixture_samples, one_sample, packed
from moss_train.bench.subject import Cut, subject
from moss_train.config.compose import compose
from moss_train.feed.work import batch_work
from moss_train.frames.activations import activation_bytes
from moss_train.frames.settings import GIB
from moss_train.planning.flops import model_flops
from moss_train.planning.workload import STAGES

TINY = model_of(Options(model="tiny", cut=Cut()))


@pytest.mark.parametrize("stage", list(STAGES))
def test_both_sides_have_the_same_samples(stage: str) -> None:
    samples = mixture_samples(stage, 5, seed=1)
    assert samples == mixture_samples(stage, 6, seed=1)[:5]
    apart, together = alone(TINY, samples), packed(TINY, stage, samples)
    assert len(apart) == 5 and all(len(batch.sample_keys) == 1 for batch in apart)
    load = STAGES[stage]
    assert all(b.num_rows == load.sequence_length and b.num_frames <= load.max_frames_per_pack for b in together)
    sizes = []
    for batch in together:
        real = [place for place, key in enumerate(batch.sample_keys) if key]
        rows, frames = batch.cu_seqlens.diff().tolist(), batch.cu_frames.diff().tolist()
        sizes += [(rows[place], frames[place]) for place in real]
    assert sorted(sizes) == sorted((s.rows, s.frames) for s in samples)
    assert sum(b.num_frames for b in apart) == sum(b.num_frames for b in together)
    assert sum(b.num_targets for b in apart) == sum(b.num_targets for b in together)


@pytest.mark.parametrize("stage", list(STAGES))
def test_a_stage_has_as_many_samples_as_two_of_its_packs_hold(stage: str) -> None:
    samples = mixture_samples(stage)
    one_more = mixture_samples(stage, len(samples) + 1)
    assert one_more[:-1] == samples
    counts = [
        len(select_packs([(s.rows, s.frames) for s in found], STAGES[stage].sequence_length, STAGES[stage].max_frames_per_pack))
        for found in (samples, one_more)
    ]
    assert counts == [PACKS, PACKS + 1]


@pytest.mark.parametrize(("rows", "frames"), [(4, 3), (1, 0)])
def test_a_sample_needs_a_word_behind_its_frames(rows: int, frames: int) -> None:
    with pytest.raises(InputError, match=f"{rows} rows do not hold {frames} frames"):
        one_sample(TINY, rows, frames)


def test_a_sample_that_fits_no_pack_is_refused() -> None:
    with pytest.raises(InputError, match="a sample of pt1 has 5000 rows and 1 frames, but its packs have at most 4096 and 64"):
        packed(TINY, "pt1", [PackSample("image", 5000, 1)])


@pytest.mark.parametrize("frames", list(PUBLISHED))
def test_a_sample_of_the_published_rows_asks_for_the_operations_of_the_figures(frames: int) -> None:
    options, figures = Options(), PUBLISHED[frames]
    config = model_of(options)
    run = compose(["stage=pt2", "run_dir=unused"])
    batch = one_sample(config, figures.rows, frames, pixels=False)
    asked = model_flops(config, batch_work(batch), run.stage, run.lora).total / 1e12
    assert (figures.tflops - 0.5) / (figures.frames_per_second + 0.05) <= asked / frames
    assert asked / frames <= (figures.tflops + 0.5) / (figures.frames_per_second - 0.05)


@given(card=st.floats(20, 200), frames=st.sampled_from([0, 8, 64, 128, 256]))
def test_long_samples_stay_within_half_of_the_references_memory(card: float, frames: int) -> None:
    limit = limit_gib(card, frames)
    assert limit <= card - FREE_GIB
    if frames == 256:
        assert limit <= PUBLISHED[256].peak_gib / 2 - MARGIN_GIB


@given(limit=st.floats(10, 130), static=st.floats(1, 60), rows=st.integers(64, 8192), fp8=st.booleans())
def test_what_is_kept_leaves_room_for_the_rest(limit: float, static: float, rows: int, fp8: bool) -> None:
    config = VideoMllamaConfig()
    kept = keep_gib(config, limit=limit, static=static, rows=rows, fp8=fp8, parameters=4_000_000_000)
    assert kept == 0 or kept + static < limit
    frames = again_frames(config, limit=limit, static=static, fp8=fp8, parameters=4_000_000_000)
    assert AGAIN[0] <= frames <= AGAIN[1]
    assert frames == AGAIN[0] or static + frames * activation_bytes(config.vision, 2, "all", True, True) / GIB < limit
    assert keep_gib(config, limit=limit + 1, static=static, rows=rows, fp8=fp8, parameters=4_000_000_000) >= kept


def test_the_card_decides_what_our_side_keeps_unless_the_config_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100 * GIB, 143 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 40 * GIB)
    for given_, kept in (((), True), (("vision.keep_activations_gib=3",), False)):
        options = Options(
            model="tiny", cut=Cut(), frames=(3,), rows=(48,), precisions=("fp32",), mixture=("pt1",), overrides=given_
        )
        (reference, cases), (ours, _) = make_cases(options)
        with subject(compose(list(ours.overrides)), torch.device("cpu"), updates=False) as made:
            bench = Comparison(options, torch.device("cuda"), lambda results: None, lambda line: None)
            assert bench.fitted(reference, cases[0], made) == reference.overrides
            for case in cases:
                found, less = (compose(list(bench.fitted(ours, case, made, part))).vision for part in (1.0, 0.5))
                room = 140 - FREE_GIB - OTHER_GIB - (MIXED_GIB if case.kind == "mixture" else 0)
                assert found.keep_activations_gib == (pytest.approx(room, abs=0.3) if kept else 3)
                assert less.keep_activations_gib == (pytest.approx(room / 2, abs=0.3) if kept else 3)
                assert found.again_chunk_frames == (AGAIN[1] if kept else 0)
