"""The reference's way computes what ours computes: the same loss and the same gradient of every parameter."""

from __future__ import annotations

import functools
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.packing.batch import IGNORE_INDEX, PackedMicroBatch
from model.attention import cores
from model.attention.cross.attention import cross_attention
from model.config import VideoMllamaConfig
from moss_train.bench.packs import PackSample
from moss_train.bench.reference.samples import alone, mixture_samples, one_sample, packed
from moss_train.bench.reference.way import OVERRIDES, ReferenceWay
from moss_train.bench.subject import Subject, overrides_of, subject
from moss_train.config.compose import compose

CPU = torch.device("cpu")
Found = tuple[float, dict[str, torch.Tensor]]


def gradients(made: Subject, batches: list[PackedMicroBatch]) -> Found:
    """Loss, and gradients by name of one step."""
    loss = made.train(batches).loss
    found = {}
    for part, module in (*((f"chunk {i}", chunk) for i, chunk in enumerate(made.models.chunks)), ("unit", made.models.unit)):
        for name, parameter in module.named_parameters():
            gradient = parameter.grad if isinstance(made, ReferenceWay) else parameter.main_grad
            found[f"{part} {name}"] = torch.zeros_like(parameter) if gradient is None else gradient.detach().clone()
    return loss, found


@torch.no_grad()
def enliven(made: Subject) -> None:
    """Weights in which nothing is neutral: every parameter has a gradient worth comparing."""
    generator = torch.Generator().manual_seed(7)
    for module in (*made.models.chunks, made.models.unit):
        for name, parameter in module.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            around = 0.5 if "gate" in name.rsplit(".", 1)[-1] else 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_(around + 0.15 * drawn)


def the_reference(batches: list[PackedMicroBatch], *more: str) -> Found:
    config = compose(overrides_of("pt2", model="tiny", precision="fp32", more=[*OVERRIDES, *more]))
    made = ReferenceWay(config, CPU)
    try:
        enliven(made)
        return gradients(made, batches)
    finally:
        made.close()


def ours(batches: list[PackedMicroBatch], *more: str) -> Found:
    config = compose(overrides_of("pt2", model="tiny", precision="fp32", more=more))
    with subject(config, CPU, updates=False) as made:
        enliven(made)
        return gradients(made, batches)


def same(first: Found, second: Found, near: float = 1e-5) -> None:
    assert first[0] == pytest.approx(second[0], rel=near)
    assert first[1].keys() == second[1].keys() and len(first[1]) > 100
    kinds: dict[str, float] = {}
    for name, wanted in second[1].items():
        kinds[_kind(name, wanted)] = max(float(wanted.abs().max()), kinds.get(_kind(name, wanted), 1e-4))
    for name, wanted in second[1].items():
        scale = kinds[_kind(name, wanted)]
        torch.testing.assert_close(
            first[1][name] / scale, wanted / scale, atol=near, rtol=near, msg=lambda m, n=name: f"{n}: {m}"
        )


def _kind(name: str, gradient: torch.Tensor) -> str:
    """What a gradient is measured by: itself; a gate's, one number in which large terms cancel, by gates of its name."""
    return name if gradient.numel() > 1 else name.rsplit(".", 1)[-1]


@functools.cache
def model_config() -> VideoMllamaConfig:
    return VideoMllamaConfig.from_dict(compose(overrides_of("pt2", model="tiny", precision="fp32")).model)


@pytest.mark.parametrize("switch", ["skip", "attend_all"])
@pytest.mark.parametrize(("rows", "frames"), [(48, 6), (32, 1), (24, 0)])
def test_loss_and_every_gradient_are_ours(rows: int, frames: int, switch: str) -> None:
    more = [f"model.switches.no_visible_rows={switch}"]
    batch = one_sample(model_config(), rows, frames, seed=3)
    found = the_reference([batch], *more)
    same(found, ours([batch], *more))
    if frames:
        still = {name for name, gradient in found[1].items() if not gradient.any()}
        assert not still, f"nothing is compared of {still}"


def test_the_way_is_the_reference_s() -> None:
    """A dense mask in the cross layers, every layer checkpointed, one graph, gradients in the parameters' own dtype."""
    made = ReferenceWay(compose(overrides_of("pt2", model="tiny", precision="bf16", more=OVERRIDES)), CPU)
    try:
        config = made.models.transformer_config
        assert config.cross_attention_backend == "dense" and config.recompute_granularity == "full"
        batch, calls = one_sample(made.model_config, 48, 6), []
        layers = list(made.models.vision.vision_model.transformer.layers)
        hooks = [layer.register_forward_pre_hook(lambda *_: calls.append(1)) for layer in layers]
        made.train([batch])
        assert len(calls) == 2 * len(layers), "each layer runs once more in the backward pass"
        for parameter in made.models.unit.parameters():
            assert parameter.grad is not None and parameter.grad.dtype == torch.bfloat16 and not hasattr(parameter, "main_grad")
        for hook in hooks:
            hook.remove()
    finally:
        made.close()


def test_one_dense_mask_serves_every_cross_layer_and_its_second_run() -> None:
    made = ReferenceWay(compose(overrides_of("pt2", model="tiny", precision="fp32", more=OVERRIDES)), CPU)
    try:
        with patch.object(cores, "cross_attention", wraps=cross_attention) as attention:
            made.train([one_sample(made.model_config, 40, 4)])
        used = attention.call_args_list
        layers = made.model_config.text.cross_attention_layers
        assert len(used) == 2 * len(layers) and {call.kwargs["backend"] for call in used} == {"dense"}
        plans = {id(call.args[3]) for call in used}
        assert len(plans) == 1 and list(used[0].args[3].cache) == [("dense", torch.float32)]
    finally:
        made.close()


def test_samples_one_by_one_each_are_a_step_of_their_own() -> None:
    config = model_config()
    first, second = one_sample(config, 40, 4, seed=1), one_sample(config, 32, 2, seed=2)
    both, last = the_reference([first, second]), the_reference([second])
    assert all(torch.equal(both[1][name], last[1][name]) for name in last[1])
    assert both[0] != last[0]


def test_packs_and_samples_alone_have_the_same_loss_and_gradients() -> None:
    """What both sides of the mixture train on: the mean over all targets does not depend on packing or padding."""
    config = model_config()
    samples = [PackSample("text", 37, 0), PackSample("image", 29, 1), PackSample("video", 83, 8)]
    each = alone(config, samples)
    (pack,) = packed(config, "sft_realtime", samples)
    # The same tokens and pixels in the pack as alone.
    for place, batch in enumerate(each):
        begin, end = pack.cu_seqlens[place : place + 2].tolist()
        batch.input_ids[: end - begin] = pack.input_ids[begin:end]
        batch.targets[: end - begin] = pack.targets[begin:end]
        a, b = pack.cu_frames[place : place + 2].tolist()
        batch.frames[:] = pack.frames[a:b]
    assert sum(batch.num_targets for batch in each) == pack.num_targets
    apart = [the_reference([batch]) for batch in each]
    weights = [batch.num_targets / pack.num_targets for batch in each]
    mean = {name: sum(w * found[1][name] for w, found in zip(weights, apart, strict=True)) for name in apart[0][1]}
    same((sum(w * found[0] for w, found in zip(weights, apart, strict=True)), mean), ours([pack]))


@settings(max_examples=20, deadline=None)
@given(stage=st.sampled_from(["pt1", "pt2", "sft_offline", "sft_realtime"]), count=st.integers(1, 12), seed=st.integers(0, 5))
def test_both_sides_get_exactly_the_same_samples(stage: str, count: int, seed: int) -> None:
    config, samples = model_config(), mixture_samples(stage, count, seed)
    assert samples == mixture_samples(stage, count, seed)
    each, packs = alone(config, samples), packed(config, stage, samples)

    def sizes(batches: list[PackedMicroBatch]) -> list[tuple[int, int]]:
        return sorted(
            (int((batch.targets[a:b] != IGNORE_INDEX).sum()), frames)
            for batch in batches
            for a, b, frames, index in zip(
                batch.cu_seqlens.tolist(), batch.cu_seqlens[1:].tolist(), batch.cu_frames.diff().tolist(), batch.dataset_index,
                strict=False,
            )
            if index >= 0
        )  # fmt: skip

    assert len(each) == count and sizes(each) == sizes(packs)
    assert all(batch.num_rows % 8 == 0 and batch.num_rows - sample.rows < 8 for batch, sample in zip(each, samples, strict=True))
    assert sum(batch.num_frames for batch in packs) == sum(sample.frames for sample in samples)
