"""The whole step with fused layers: megatron-core's DDP, the decoder, frames kept at every level or encoded again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from data_pipeline.packing.batch import PackedMicroBatch
from model.config import VideoMllamaConfig
from model.vision.fused.levels import KEPT, all_fused
from moss_train.bench.packs import stage_pack
from moss_train.bench.subject import Subject, overrides_of, subject
from moss_train.config.compose import compose
from moss_train.frames import on_host
from moss_train.frames.activations import activation_bytes
from moss_train.frames.owned import OwnedFrames
from moss_train.frames.settings import EncodeSettings

CPU = torch.device("cpu")
FRAMES = 5


def _config(*more: str, stage: str = "pt2") -> Any:
    return compose(overrides_of(stage, model="tiny", more=("precision=fp32", "vision.encode_chunk_frames=2", *more)))


def _pack(made: Subject) -> PackedMicroBatch:
    return stage_pack(made.model_config, "pt2", 96, FRAMES, 3)


def _step(*more: str, stage: str = "pt2") -> tuple[float, dict[str, Tensor], Any]:
    """Loss, gradients in the buffers, and what the step says of its frames."""
    with subject(_config(*more, stage=stage), CPU, updates=False, weights="seeded") as made:
        assert all_fused(made.models.vision) == ("vision.layers=fused" in more)
        statistics = made.train([_pack(made)])
        found = {n: p.main_grad.clone() for n, p in made.models.unit.named_parameters() if p.requires_grad}  # type: ignore[attr-defined]
        told = {p.grad is None for p in made.models.unit.parameters()}
        frames = made.step.frames
        return statistics.loss, found, (frames.kept, frames.keep_mode, frames.encoded_again, told)


@pytest.fixture(scope="module")
def by_operators() -> tuple[float, dict[str, Tensor], Any]:
    return _step("vision.layers=torch", "vision.keep_activations_gib=-1")


@pytest.mark.parametrize("level", [*KEPT, "auto"])
def test_a_step_at_every_level(level: str, by_operators: tuple[float, dict[str, Tensor], Any]) -> None:
    loss, gradients, said = _step("vision.layers=fused", f"vision.keep_mode={level}", "vision.keep_activations_gib=-1")
    _same(by_operators, loss, gradients)
    assert said == (FRAMES, "all" if level == "auto" else level, 0, {True})


@pytest.mark.parametrize("fits", [0, 2])
def test_a_step_that_encodes_frames_again(fits: int, by_operators: tuple[float, dict[str, Tensor], Any]) -> None:
    vision = VideoMllamaConfig.from_dict(_config().model).vision
    gib = fits * (activation_bytes(vision, 4, "most", fused=True) + 1) / 2**30
    loss, gradients, (kept, _, again, _) = _step(
        "vision.layers=fused", f"vision.keep_activations_gib={gib:.9f}", "vision.keep_mode=most", "vision.again_chunk_frames=2"
    )
    _same(by_operators, loss, gradients)
    assert (kept, again) == (fits, FRAMES - fits)


@pytest.mark.parametrize("windows", [4.0, 1e-6])
def test_a_step_with_states_in_host_memory(
    windows: float, by_operators: tuple[float, dict[str, Tensor], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_host, "SMALLEST", 1)
    vision = VideoMllamaConfig.from_dict(_config().model).vision
    one, two = ((n * activation_bytes(vision, 4, "attention", fused=True) + 9) / 2**30 for n in (1, 2))
    words = (
        "vision.layers=fused",
        "vision.keep_mode=attention",
        "vision.keep_host_mode=attention",
        f"vision.window_gib={windows}",
    )
    config = _config(*words, f"vision.keep_activations_gib={one:.9f}", f"vision.keep_host_gib={two:.9f}")
    with subject(config, CPU, updates=False, weights="seeded") as made:
        for _ in range(2):  # the second time in the memory of the first
            batches = [_pack(made), _pack(made)]
            loss = made.train(batches).loss
            frames = made.step.frames
            assert (frames.kept_on_host, frames.kept, frames.encoded_again, frames.host_mode) == (2, 1, 7, "attention")
            assert frames.windows == (1 if windows > 1 else 2)
        gradients = {n: p.main_grad.clone() for n, p in made.models.unit.named_parameters() if p.requires_grad}
        evaluated = made.step.evaluate([batches], ["synthetic"])
        assert frames.kept_on_host == 0 and evaluated.loss == pytest.approx(loss, rel=1e-6)
    _same(by_operators, loss, gradients)


def _same(expected: tuple[float, dict[str, Tensor], Any], loss: float, gradients: dict[str, Tensor]) -> None:
    assert loss == pytest.approx(expected[0], rel=1e-6)
    assert gradients.keys() == expected[1].keys()
    for name, wanted in expected[1].items():
        torch.testing.assert_close(gradients[name], wanted, rtol=0, atol=1e-5 * max(1e-2, float(wanted.abs().max())), msg=name)


def test_a_second_pass_gives_the_features_of_the_first_bit_for_bit() -> None:
    with subject(_config("vision.layers=fused"), CPU, updates=False, weights="seeded") as made:
        pack = _pack(made)
        encoder, seen = made.models.vision, []
        handle = encoder.multi_modal_projector.register_forward_hook(lambda _module, _entry, out: seen.append(out.detach()))
        settings = EncodeSettings(keep_frames=0, chunk=3, again_chunk=3, fused=True)
        owned = OwnedFrames(encoder, pack.frames, pack.aspect_ratio_ids, "tower", 0, settings)
        assert owned.features is not None
        first = owned.features.clone()
        seen.clear()
        owned.backward(torch.randn(first.shape, generator=torch.Generator().manual_seed(0)))
        handle.remove()
        assert torch.equal(torch.cat(seen), first)
