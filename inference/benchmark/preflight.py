"""`python -m inference.benchmark.preflight`: every Triton kernel of the 11B model compiled for Hopper, on any machine.

A model of the real widths on the meta device is fed steps of every size that the engine feeds, so each kernel meets the types,
strides and launches that it will meet on the GPU. Nothing runs and no memory is taken. Prints registers, shared memory and how
many programs fit on a multiprocessor; ends with 1 where more than a few registers were spilled to memory.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from inference.cache.store import KVStore
from inference.commands import exit_code
from inference.graphs.runner import FRAME_BUCKETS, GPU_WIDTHS, ROW_BUCKETS, SESSIONS
from inference.kernels.gelu_product import gelu_product
from inference.kernels.vision_attention import vision_attention
from inference.kernels.vision_rows import add_norm, gelu_rows, round_rows
from inference.model.linear import set_products
from inference.model.load import ModelBuilder
from inference.model.rows import FIELDS, StepRows
from inference.model.video_mllama import VideoMllama
from inference.quantize import PRECISIONS, recipe_of
from inference.sampling import SamplingPath
from inference.sampling.rules import COLUMNS, Rows, choose
from inference.vision.blocks import split_heads
from model.config import VideoMllamaConfig
from model.errors import InputError
from model.kernels.select import has_triton

if TYPE_CHECKING:
    from model.kernels.compile_only import Compiled

_META = torch.device("meta")
PROMPTS = (300, 577)
"""Rows of steps that run eagerly: few enough to share their keys among programs, and so many that they do not."""
_FRAMES = 30_000
"""Of the pool: more bytes than 32 bits can count, in every layer."""


def two_layers(config: VideoMllamaConfig) -> VideoMllamaConfig:
    """The same widths with one layer of each kind: all layers of a kind take the same kernels."""
    return replace(config, text=replace(config.text, num_hidden_layers=2, cross_attention_layers=(1,)))


def planned_model(config: VideoMllamaConfig, recipe: str) -> VideoMllama:
    """A model without memory, in bf16."""
    builder = ModelBuilder(config, _META, torch.bfloat16, Path("planned"), {}, recipe_of(recipe))
    for name, shape in builder.shapes.items():
        builder.take(name, torch.empty(shape, device=_META, dtype=torch.bfloat16))
    return builder.finish()


def walk(model: VideoMllama, store: KVStore, rows: Sequence[int], frames: Sequence[int]) -> None:
    """Steps of so many rows, and writes of so many new frames."""
    text_tables, frame_tables = (torch.empty(SESSIONS + 1, width, dtype=torch.int32, device=_META) for width in GPU_WIDTHS)
    for count in rows:
        # As in the engine, a step's integers begin anywhere in one buffer.
        packed = torch.empty(1 + len(FIELDS) * count, dtype=torch.int32, device=_META)[1:]
        step = StepRows.of(packed.view(len(FIELDS), count), text_tables, frame_tables)
        logits = model.logits(model.decode(step, step.tokens, store.self_pool, store.cross_pool)[:1])
        flags = torch.empty_like(logits, dtype=torch.uint8)
        choose(logits, Rows(torch.empty(1, COLUMNS, dtype=torch.int64, device=_META), flags), SamplingPath())
    config = model.config
    for count in frames:
        states = torch.empty(count, config.vision.tokens_per_frame, config.text.hidden_size, dtype=model.dtype, device=_META)
        pages, positions = torch.empty(2, count, dtype=torch.int32, device=_META)
        model.add_frames(states, pages, positions, store.cross_pool)


def walk_all(config: VideoMllamaConfig, recipe: str, *, fp8_frames: bool, streamed: bool, rows: Sequence[int]) -> None:
    """All steps of one precision.

    Args:
        config: dimensions.
        recipe: of the weights.
        fp8_frames: keys and values of frames in fp8, unrotated keys beside them.
        streamed: dense matrices too take the product of few rows, as is the default.
        rows: of the steps.
    """
    model = planned_model(config, recipe)
    set_products(model.matrices(), None if streamed else "torch")
    kept = {"fp8_frames": fp8_frames, "raw_keys": fp8_frames}
    store = KVStore(config, _META, torch.bfloat16, positions=8192, frames=_FRAMES, **kept)
    walk(model, store, rows, FRAME_BUCKETS)


def walk_tower(config: VideoMllamaConfig) -> None:
    """The kernels of the tower's layers."""
    vision = config.vision
    x = torch.empty(2, 1601, vision.hidden_size, dtype=torch.bfloat16, device=_META)
    weight = torch.empty(vision.intermediate_size, vision.hidden_size, dtype=torch.bfloat16, device=_META)
    bias, wide = weight[0].contiguous(), weight[:, 0].contiguous()
    gelu_product(x, weight, wide, form="triton")
    round_rows(x)
    for fp8 in (False, True):
        add_norm(x, x, bias if fp8 else None, bias[:1].contiguous(), bias, bias, vision.norm_eps, fp8)
        gelu_rows(x.new_empty(2, 1601, vision.intermediate_size), wide if fp8 else None, fp8)
    for tokens in (1608, 978):  # a whole frame, and one of 16:9 whose padding is weighed
        q, k, v = split_heads(x.new_empty(2, tokens, 3 * vision.hidden_size), vision.num_attention_heads)
        vision_attention(q, k, v, None if tokens == 1608 else x.new_empty(tokens, dtype=torch.float32), form="triton")


@torch.inference_mode()
def preflight(config: VideoMllamaConfig, recipes: Sequence[str], rows: Sequence[int]) -> list[Compiled]:
    """All kernels of these precisions.

    Raises:
        InputError: no Triton, or one without its assembler.
    """
    if not has_triton():
        raise InputError("the package triton is not installed; install it")
    from model.kernels.compile_only import compile_only, has_compiler

    if not has_compiler():
        raise InputError("this build of triton carries no ptxas or cuobjdump; install the wheel of PyPI")
    with compile_only() as found:
        for recipe in recipes:
            for fp8_frames, streamed in ((False, False), (True, True)):
                walk_all(two_layers(config), recipe, fp8_frames=fp8_frames, streamed=streamed, rows=rows)
        walk_tower(config)
    return found


def run(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m inference.benchmark.preflight", description=__doc__)
    parser.add_argument("--precision", choices=sorted(PRECISIONS), action="append", help="by default bf16 and fp8")
    parser.add_argument("--rows", type=int, action="append", help="of a step; by default all that the engine feeds")
    args = parser.parse_args(argv)
    found = preflight(VideoMllamaConfig(), args.precision or ("bf16", "fp8"), args.rows or (*ROW_BUCKETS, *PROMPTS))
    print("\n".join(kernel.line() for kernel in sorted(found, key=lambda kernel: kernel.name)))
    spilled = [kernel.name for kernel in found if kernel.spills]
    if spilled:
        print(f"registers in memory: {', '.join(spilled)}", file=sys.stderr)
    return int(bool(spilled))


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 1 for spilled registers, 2 for input that a user can put right."""
    return exit_code("preflight", lambda: run(argv))


if __name__ == "__main__":
    sys.exit(main())
