"""Models with fp8 weights: which bytes they hold, how far each matrix and the logits move, and that both ways to them agree."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from inference.engine import StepEngine, Stepping, StepRequest
from inference.model import load_model
from inference.model.layers import CrossLayer
from inference.model.linear import DenseLinear
from inference.model.video_mllama import VideoMllama
from inference.quantize import PRECISIONS, Fp8Linear, quantize_model, recipe_of
from inference.quantize.model import decoder_bytes
from inference.sampling import Sampler, SamplingConfig
from model.errors import InputError
from tests.inference.checkpoints import random_tensors, tiny_config, write_checkpoint
from tests.inference.quantize.live_bytes import LiveBytes

CONFIG = tiny_config(vocab_size=60)
MATRICES = ("query", "key_value", "qkv", "out", "gate_up", "down")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("fp8") / "tiny", CONFIG)


def matrices(model: VideoMllama) -> dict[str, DenseLinear | Fp8Linear]:
    return {f"{i}.{n}": getattr(x, n) for i, x in enumerate(model.layers) for n in MATRICES if hasattr(x, n)}


def logits(model: VideoMllama, tokens: list[int], frames: int) -> torch.Tensor:
    engine = StepEngine(model)
    pictures = torch.randint(0, 256, (frames, 3, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return engine.step(engine.new_cache(), tokens, engine.encode(pictures), every_row=True)


@pytest.mark.parametrize("recipe", list(PRECISIONS))
def test_bytes_are_those_of_the_formula(folder: Path, recipe: str) -> None:
    hidden, inner, kv = 32, 48, 16
    attention, mlp = 2 * hidden * hidden + 2 * kv * hidden, 3 * inner * hidden
    attention_rows, mlp_rows = 2 * hidden + 2 * kv, 2 * inner + hidden
    narrow = {"bf16": (0, 0), "fp8": (3 * attention + 5 * mlp, 3 * attention_rows + 5 * mlp_rows)}
    narrow["fp8_self"] = (3 * (attention + mlp), 3 * (attention_rows + mlp_rows))
    elements, rows = narrow[recipe]
    whole = 3 * attention + 5 * mlp + 2 * 2 * hidden * hidden + 60 * hidden  # two cross layers read q and o; the head
    model = load_model(folder, dtype=torch.bfloat16, recipe=recipe)
    assert decoder_bytes(model) == 2 * (whole - elements) + elements + 4 * rows
    assert {type(layer.query) for layer in model.cross_layers} == {DenseLinear}
    assert model.embedding.dtype == torch.bfloat16


@pytest.mark.parametrize("recipe", ["fp8", "fp8_self"])
def test_loading_and_rounding_afterwards_give_the_same_bits(folder: Path, recipe: str) -> None:
    loaded = load_model(folder, recipe=recipe)
    rounded = quantize_model(load_model(folder), recipe_of(recipe))
    for name, one in matrices(loaded).items():
        two = matrices(rounded)[name]
        assert type(one) is type(two)
        assert torch.equal(one.weight.float(), two.weight.float())
        if isinstance(one, Fp8Linear):
            assert isinstance(two, Fp8Linear) and torch.equal(one.factor, two.factor)
    tokens = [1, 2, CONFIG.image_token_id, 3]
    assert torch.equal(logits(loaded, tokens, 1), logits(rounded, tokens, 1))
    again = quantize_model(rounded, recipe_of(recipe))
    assert torch.equal(logits(again, tokens, 1), logits(loaded, tokens, 1))


def test_matrices_and_logits_stay_near(folder: Path) -> None:
    dense, narrow = load_model(folder), load_model(folder, recipe="fp8")
    for name, found in matrices(narrow).items():
        given = matrices(dense)[name].weight
        if isinstance(found, DenseLinear):
            assert torch.equal(found.weight, given)
            continue
        error = (found.dense(torch.float32) - given).abs().amax(1)
        assert bool((error <= given.abs().amax(1) / 16 * (1 + 1e-5)).all())
        assert float((found.dense(torch.float32) - given).norm() / given.norm()) < 0.03
    assert all(isinstance(layer.gate_up, Fp8Linear) for layer in narrow.layers if isinstance(layer, CrossLayer))
    tokens = [5, 9, CONFIG.image_token_id, 4, 7, CONFIG.image_token_id, 3, 20]
    one, two = logits(dense, tokens, 2), logits(narrow, tokens, 2)
    assert not torch.equal(one, two)
    assert float(torch.cosine_similarity(one, two).min()) > 0.97


@pytest.mark.parametrize("rows", [1, 16, 17, 40])
@pytest.mark.parametrize("as_on_gpu", [False, True])
def test_a_product_is_that_of_what_the_weight_and_the_rows_became(rows: int, as_on_gpu: bool) -> None:
    generator = torch.Generator().manual_seed(rows)
    x, weight = torch.randn(2, rows, 24, generator=generator)[:1], torch.randn(10, 24, generator=generator)
    matrix = Fp8Linear.of(weight, as_on_gpu=as_on_gpu)
    given = x.double()
    if as_on_gpu and rows > 16:
        factor = x.abs().amax(-1, keepdim=True) / 448
        given = ((x / factor).to(torch.float8_e4m3fn).float() * factor).double()
        assert not torch.allclose(given, x.double(), rtol=1e-3)
    factor = weight.abs().amax(1, keepdim=True) / 448
    expected = given @ ((weight / factor).to(torch.float8_e4m3fn).float() * factor).double().T
    assert matrix(x).shape == (1, rows, 10)
    assert torch.allclose(matrix(x).double(), expected, atol=1e-5)


def test_portions_equal_the_whole_with_fp8_weights(folder: Path) -> None:
    model = load_model(folder, recipe="fp8")
    tokens = [5, 9, CONFIG.image_token_id, 4, 7, 3]
    engine = StepEngine(model)
    cache = engine.new_cache()
    pictures = torch.randint(0, 256, (1, 3, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    parts = [engine.step(cache, tokens[:2]), engine.step(cache, tokens[2:3], engine.encode(pictures))]
    parts += [engine.step(cache, [token]) for token in tokens[3:]]
    assert torch.allclose(torch.cat(parts), logits(model, tokens, 1)[1:], atol=1e-5)


def test_static_buffers_change_nothing_with_fp8_weights(folder: Path) -> None:
    """What a GPU does, graphs and running ahead, against plain steps."""
    model, said = load_model(folder, recipe="fp8"), []
    config = SamplingConfig(do_sample=True, top_k=8, seed=4)
    for graphs in (False, True):
        engine = StepEngine(model, graphs=graphs)

        def session(engine: StepEngine, seed: int) -> Stepping[list[int]]:
            sampler = Sampler(dataclasses.replace(config, seed=seed), banned=[CONFIG.image_token_id])
            cache = engine.new_cache()
            tokens = [(yield StepRequest(cache, [5, 9, seed], sampler=sampler))]
            while len(tokens) < 8:
                tokens.append((yield StepRequest(cache, tokens[-1:], sampler=sampler, ahead=True)))
            return tokens

        said.append(engine.drive([session(engine, seed) for seed in range(3)]))
    assert said[0] == said[1]


def test_loading_holds_little_more_than_the_model(tmp_path: Path) -> None:
    """Live bytes, counted at every operation: never the whole in fp32, and no second copy of what is joined."""
    folder = write_checkpoint(tmp_path / "tiny", CONFIG, tensors=random_tensors(CONFIG))
    peaks, kept = {}, {}
    for recipe in ("bf16", "fp8"):
        with LiveBytes() as live:
            model = load_model(folder, recipe=recipe)
            live.collect()
        peaks[recipe], kept[recipe] = live.peak, live.now
        del model
    largest = 4 * 2 * 48 * 32  # gate_up in fp32
    for recipe in peaks:
        assert kept[recipe] <= peaks[recipe] <= kept[recipe] + 4 * largest
    assert kept["fp8"] < 0.7 * kept["bf16"]


def test_rounding_a_loaded_model_holds_one_matrix_twice(folder: Path) -> None:
    with LiveBytes() as live:
        model = load_model(folder)
        live.collect()
        before = live.peak = live.now
        quantize_model(model, recipe_of("fp8"))
    largest = 4 * 2 * 48 * 32
    assert before < live.peak <= before + 4 * largest  # the widened copy, its magnitudes, the quotient
    assert live.now < 0.7 * before


def test_bad_precisions_and_weights_are_named(folder: Path) -> None:
    with pytest.raises(InputError, match="precision is 'int3'; use one of bf16, fp8, fp8_self"):
        load_model(folder, recipe="int3")
    with pytest.raises(InputError, match=r"fp8 weight has torch.float32 \[2, 3\]"):
        Fp8Linear(torch.zeros(2, 3), torch.ones(2))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("rows", [1, 5, 16, 17, 64, 577])
def test_products_on_a_gpu(rows: int) -> None:
    """Each form against fp64, within the rounding of its rows and of bf16."""
    x = torch.randn(rows, 512, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(768, 512, device="cuda", dtype=torch.bfloat16)
    matrix = Fp8Linear.of(weight)
    expected = x.double() @ matrix.dense(torch.float32).double().T
    error = float((matrix(x).double() - expected).norm() / expected.norm())
    assert error < (0.005 if rows <= 16 else 0.04)
