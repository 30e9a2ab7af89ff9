"""The decoder made of Transformer Engine's modules: the same function, names and checkpoints, and what computes in fp8."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from model.config import VideoMllamaConfig
from model.conversion import gather_hf_weights, load_hf_weights
from model.errors import InputError
from model.fp8 import check_rows, pad_rows
from model.freeze import PARTS, part_parameters
from model.text.fused_norms import plain_name
from model.text.provider import choose_provider, transformer_engine_provider
from model.text.transformer_engine.history import history_of, put_history_back
from model.video_mllama import VideoMllamaDecoder, build_decoder_chunks, make_transformer_config
from model.vision.encoder import VisionEncoder
from moss_train.checkpoint.load import load_model_weights
from moss_train.checkpoint.save import save_model_only
from tests.model.small import lively_weights, packed_rows, random_states, small_config, with_text
from tests.model.text.engine_stand_in import DelayedScaling, Float8CurrentScaling, State, autocast, stand_in

SAMPLES = [(20, [0, 5]), (12, [1])]
"""32 rows and 3 frames: 15 frame tokens, which fp8 would not take unpadded."""


@pytest.fixture
def engine(solo: None) -> Iterator[type[State]]:
    with stand_in() as state:
        state.moved_on = 0
        yield state


def _config() -> VideoMllamaConfig:
    config = with_text(small_config(), hidden_size=64, num_attention_heads=4, num_key_value_heads=2, intermediate_size=96)
    return dataclasses.replace(config, vision=dataclasses.replace(config.vision, hidden_size=32, intermediate_size=64))


def _decoder(config: VideoMllamaConfig, fused: bool, **options: Any) -> VideoMllamaDecoder:
    provider = transformer_engine_provider(**options) if fused else None
    (chunk,) = build_decoder_chunks(config, make_transformer_config(config), provider)
    return chunk


def _load(decoder: VideoMllamaDecoder, seed: int = 0) -> VideoMllamaDecoder:
    weights = lively_weights(decoder.model_config, seed)
    load_hf_weights([decoder], None, {n: t for n, t in weights.items() if n.startswith("language_model.")})
    return decoder


@pytest.mark.parametrize("fuse_norms", [True, False])
def test_losses_and_gradients_are_those_of_the_torch_modules(engine: type[State], fuse_norms: bool) -> None:
    config = _config()
    rows, states = packed_rows(config, SAMPLES, 3), random_states(config, 3, 1)
    found = []
    for decoder in (_load(_decoder(config, False)), _load(_decoder(config, True, fuse_norms=fuse_norms))):
        leaf = states.clone().requires_grad_()
        losses = decoder(rows, leaf)
        losses.sum().backward()
        gradients = gather_hf_weights([decoder], None, read=lambda p: torch.zeros_like(p) if p.grad is None else p.grad)
        assert gradients is not None
        found.append((losses.detach(), leaf.grad, gradients))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-5, atol=1e-6)
    assert found[1][2].keys() == found[0][2].keys()
    for name, gradient in found[0][2].items():
        torch.testing.assert_close(found[1][2][name], gradient, rtol=1e-5, atol=1e-6, msg=name)


def test_parts_hold_the_same_parameters(engine: type[State]) -> None:
    config = _config()
    parts = []
    for fused in (False, True):
        decoder = _decoder(config, fused)
        names = {id(p): plain_name(n) for n, p in decoder.named_parameters()}
        parts.append({part: sorted(names[id(p)] for p in part_parameters(part, [decoder], None)) for part in PARTS})
    assert parts[0] == parts[1]
    assert parts[1]["text"] and parts[1]["cross_layers"]


@pytest.mark.parametrize("written_by_engine", [True, False])
def test_checkpoints_are_read_whichever_modules_wrote_them(engine: type[State], tmp_path: Path, written_by_engine: bool) -> None:
    config = _config()
    writer, reader = _load(_decoder(config, written_by_engine)), _decoder(config, not written_by_engine)
    if written_by_engine:
        _give_history(writer.decoder.layers[0].mlp.linear_fc1)  # type: ignore[union-attr]
    save_model_only(tmp_path, [writer], VisionEncoder(config), config)
    load_model_weights(tmp_path, [reader], VisionEncoder(config))
    own = {plain_name(n): p for n, p in reader.named_parameters()}
    for name, parameter in writer.named_parameters():
        assert torch.equal(own[plain_name(name)], parameter), name


def test_histories_come_back_from_a_checkpoint(engine: type[State], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = _config()
    writer, reader = _decoder(config, True), _decoder(config, True)
    _give_history(writer.decoder.layers[0].mlp.linear_fc1)  # type: ignore[union-attr]
    save_model_only(tmp_path, [writer], VisionEncoder(config), config)
    modules = __import__("model.text.transformer_engine.modules", fromlist=["modules"])
    monkeypatch.setattr(modules, "get_fp8_recipe", lambda config: DelayedScaling())
    target: Any = reader.decoder.layers[0].mlp.linear_fc1  # type: ignore[union-attr]
    target.config = dataclasses.replace(target.config, fp8="hybrid")
    target.init_fp8_meta_tensors = lambda recipe: target.fp8_meta.update(_fresh())
    load_model_weights(tmp_path, [reader], VisionEncoder(config))
    assert torch.equal(target.fp8_meta["scaling_fwd"].scale, torch.arange(3.0))
    assert torch.equal(target.fp8_meta["scaling_bwd"].amax_history, torch.full((4, 2), 7.0))


class _Scaling:
    def __init__(self, tensors: int) -> None:
        self.scale, self.amax_history = torch.ones(tensors), torch.zeros(4, tensors)


def _fresh() -> dict[str, _Scaling]:
    return {"scaling_fwd": _Scaling(3), "scaling_bwd": _Scaling(2)}


def _give_history(module: Any) -> None:
    module.fp8_meta.update(_fresh())
    module.fp8_meta["scaling_fwd"].scale = torch.arange(3.0)
    module.fp8_meta["scaling_bwd"].amax_history = torch.full((4, 2), 7.0)


def test_a_history_of_another_length_or_recipe_is_passed_over() -> None:
    class Module:
        config = type("Config", (), {"fp8": "hybrid"})()

        def __init__(self) -> None:
            self.fp8_meta: dict[str, Any] = {}

        def init_fp8_meta_tensors(self, recipe: Any) -> None:
            self.fp8_meta.update(_fresh())

    module = Module()
    assert history_of(module) is None
    _give_history(module)
    kept = history_of(module)
    assert kept is not None
    other = Module()
    put_history_back(other, kept, Float8CurrentScaling)
    put_history_back(other, None, DelayedScaling)
    assert other.fp8_meta == {}
    kept["forward_history"] = torch.zeros(9, 3)
    put_history_back(other, kept, DelayedScaling)
    assert torch.equal(other.fp8_meta["scaling_fwd"].scale, torch.ones(3))
    assert torch.equal(other.fp8_meta["scaling_bwd"].amax_history, torch.full((4, 2), 7.0))


@pytest.mark.parametrize("fp8_cross_layers", [False, True])
def test_what_computes_in_fp8(engine: type[State], fp8_cross_layers: bool) -> None:
    config = _config()
    decoder = _load(_decoder(config, True, fp8_cross_layers=fp8_cross_layers))
    rows, states = packed_rows(config, SAMPLES, 3), random_states(config, 3, 1)
    with torch.no_grad():
        plain = decoder(rows, states)
        for module in decoder.modules():
            getattr(module, "ran", []).clear()
        with autocast(enabled=True, recipe=DelayedScaling()):
            inside = decoder(rows, states)
    assert torch.equal(inside, plain)  # the stand-in's products are exact: padding and scopes change nothing
    assert engine.moved_on == 1, "only the decoder's own scope moves histories on"
    firsts = [name for name, module in decoder.named_modules() if getattr(module, "first", False)]
    assert firsts == ["decoder.layers.0.self_attention.linear_qkv"]
    for index, layer in enumerate(decoder.decoder.layers):
        cross = index in config.text.cross_attention_layers
        ran = [recipe for module in layer.modules() for recipe in getattr(module, "ran", [])]
        kinds = {type(recipe).__name__ for recipe in ran}
        expected = ("Float8CurrentScaling" if fp8_cross_layers else "NoneType") if cross else "DelayedScaling"
        assert kinds == {expected}, (index, kinds)
        assert len(ran) == (5 if cross else 4)
    assert not hasattr(decoder.output_layer, "ran") and decoder.output_layer.weight.shape[0] == 104  # 99 rows, padded
    assert decoder.embedding.word_embeddings.weight.shape[0] == 112


def test_rows_that_fp8_does_not_take_are_refused(engine: type[State]) -> None:
    config = _config()
    decoder = _load(_decoder(config, True))
    rows = packed_rows(config, [(21, [0]), (12, [])], 3)
    decoder(rows, random_states(config, 1, 1))
    with autocast(enabled=True, recipe=DelayedScaling()), pytest.raises(InputError, match=r"stage\.sequence_length to 48"):
        decoder(rows, random_states(config, 1, 1))
    check_rows(64, 4)
    with pytest.raises(InputError, match="multiple of 64 rows, not 96"):
        check_rows(96, 4)


def test_the_tower_in_fp8_keeps_names_and_values(engine: type[State]) -> None:
    from model.vision.fp8_linears import use_fp8_linears

    config = _config()
    encoder = VisionEncoder(config)
    pixels = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    ids = torch.ones(3, dtype=torch.int64)
    names = list(encoder.state_dict())
    plain = encoder(pixels, ids)
    use_fp8_linears(encoder, config)
    assert sorted(encoder.state_dict()) == sorted(names)
    assert torch.equal(encoder(pixels, ids), plain)
    ran = {n: type(r).__name__ for n, m in encoder.named_modules() for r in getattr(m, "ran", [])}
    assert len(ran) == 6 * (config.vision.num_hidden_layers + config.vision.num_global_layers)
    assert set(ran.values()) == {"Float8CurrentScaling"}
    assert engine.moved_on == 0
    assert not any(getattr(module, "first", False) for module in encoder.modules())
    narrow = dataclasses.replace(config, vision=dataclasses.replace(config.vision, intermediate_size=72))
    with pytest.raises(InputError, match=r"fp8_vision is on, but vision\.intermediate_size is 72"):
        use_fp8_linears(VisionEncoder(narrow), narrow)


def test_padding_rows_keeps_what_is_there() -> None:
    x = torch.randn(3, 5, 8)
    padded = pad_rows(x)
    assert padded.shape == (16, 8)
    assert torch.equal(padded[:15], x.flatten(0, 1)) and not padded[15:].any()
    assert pad_rows(torch.randn(4, 4, 8)).shape == (16, 8)


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for what only a machine without CUDA lacks")
def test_modules_that_are_not_there_are_named() -> None:
    assert choose_provider("auto", dtype="bf16").norm_column_linear is None
    for options, named in (
        ({"modules": "transformer_engine"}, "modules cannot be used: .*no CUDA device.*modules=torch"),
        ({"modules": "auto", "fp8": "current"}, r"precision\.fp8 is current, but Transformer Engine.*no CUDA device"),
        ({"modules": "torch", "fp8": "delayed"}, r"precision\.fp8 is delayed with modules=torch"),
        ({"modules": "fast"}, "use one of auto, torch, transformer_engine"),
    ):
        with pytest.raises(InputError, match=named):
            choose_provider(**options)


def test_heads_and_dtypes_that_fused_attention_does_not_take(monkeypatch: pytest.MonkeyPatch, engine: type[State]) -> None:
    monkeypatch.setattr("model.text.provider.transformer_engine_problem", lambda: None)  # as on a machine that has it
    assert choose_provider("auto", dtype="bf16", head_dim=64).norm_column_linear is not None
    for options, named in (({"head_dim": 20}, "heads are 20 wide"), ({"dtype": "fp32"}, r"precision\.dtype is fp32")):
        assert choose_provider("auto", **options).norm_column_linear is None
        with pytest.raises(InputError, match=named):
            choose_provider("transformer_engine", **options)


def test_widths_that_fp8_does_not_take_are_named() -> None:
    with pytest.raises(InputError, match=r"text\.intermediate_size / parallel\.tensor is 24"):
        make_transformer_config(_config_of_width(48), tensor=2, dtype="bf16", fp8="delayed")
    config = make_transformer_config(_config_of_width(96), dtype="bf16", fp8="current")
    assert (config.fp8, config.fp8_recipe, config.tp_only_amax_red) == ("hybrid", "tensorwise", True)


def _config_of_width(inner: int) -> VideoMllamaConfig:
    return with_text(small_config(), hidden_size=64, num_attention_heads=4, num_key_value_heads=2, intermediate_size=inner)


def test_fused_names_have_plain_ones() -> None:
    assert plain_name("decoder.layers.7.mlp.linear_fc1.layer_norm_weight") == "decoder.layers.7.pre_mlp_layernorm.weight"
    assert plain_name("decoder.layers.7.mlp.linear_fc1.weight") == "decoder.layers.7.mlp.linear_fc1.weight"
