"""`moss verify precision CHECKPOINT`: what fp8 weights, or fp8 keys and values of frames, change in a checkpoint's outputs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from inference.engine import StepEngine
    from inference.model.video_mllama import VideoMllama
    from inference.quantize.effect import Case, Decoded

_QUESTIONS = ("Describe the video.", "What happens in the video?", "What colour is it?")
_CLIP = "rabbit.mp4"
_RANDOM = "random:"
_COLUMNS = {
    "cosine_mean": "cosine",
    "cosine_least": "least",
    "kl_mean": "KL",
    "kl_most": "most KL",
    "greedy_agreement": "same",
    "first_difference": "other at",
}

_PROMPT = 32
"""Characters of a prompt that are shown."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `moss verify precision`."""
    from inference.commands import add_option

    parser.add_argument(
        "checkpoint", help="folder in Hugging Face layout with its tokenizer.json, a hub id, or random:11b, random:tiny"
    )
    parser.add_argument("--recipe", action="append", help="bf16, fp8 or fp8_self; several times for several (default fp8)")
    add_option(parser, "cross_kv", default="bf16", help="also keep keys and values of frames in fp8: fp8 or bf16 (default)")
    parser.add_argument("--prompt", action="append", help="what is asked; several times for several (default: three questions)")
    parser.add_argument("--video", type=Path, metavar="FILE", help="the frames that are asked about (default: a bundled clip)")
    parser.add_argument("--frames", type=int, default=8, help="frames at most, 0 for text alone (default 8)")
    parser.add_argument("--tokens", type=int, default=32, help="length of the replies that are compared (default 32)")
    add_option(
        parser, "as_on_gpu", action="store_true", help="on a CPU, also round the rows of prompts to fp8, as a GPU's product does"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:N or auto (default)")
    parser.add_argument("--dtype", default="auto", help="fp32, bf16, fp16 or auto: bf16 on a GPU, fp32 elsewhere (default)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything that was found to this file")


def run(args: argparse.Namespace) -> int:
    """Measures and prints.

    Raises:
        InputError: bad arguments, checkpoint or video, or a model whose logits are not finite.
    """
    import torch

    from inference.checkpoint import check_device, dtype_of
    from inference.engine import StepEngine
    from inference.quantize import recipe_of
    from inference.quantize.effect import decode
    from inference.quantize.model import decoder_bytes

    _check(args)
    recipes = [recipe_of(name) for name in args.recipe or ("fp8",)]
    device = torch.device(check_device(args.device))
    dtype = dtype_of(args.dtype if args.dtype != "auto" else "bf16" if device.type == "cuda" else "fp32")
    load = _loader(args.checkpoint, device, dtype)
    model = load("bf16")
    cases = _cases(args, model)
    engine = StepEngine(model, graphs=False)
    whole = [decode(engine, case, args.tokens) for case in cases]
    found: list[dict[str, Any]] = []
    bytes_whole = decoder_bytes(model)
    for recipe in recipes:
        del engine, model  # one model at a time
        model = load(recipe.name)
        engine = _engine(args, model)
        sizes = {"recipe": recipe.name, "cross_kv": args.cross_kv, "decoder_bytes": decoder_bytes(model)}
        found.append({**sizes, "effects": _effects(args, engine, cases, whole)})
    _print(found, bytes_whole, dtype, device)
    if args.json is not None:
        _write(args, found, bytes_whole, dtype, device)
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuse what cannot be measured before a model is loaded."""
    from model.errors import InputError

    for name, value, least in (("--tokens", args.tokens, 1), ("--frames", args.frames, 0)):
        if value < least:
            raise InputError(f"{name} is {value}; it must be at least {least}")
    if args.cross_kv not in ("bf16", "fp8"):
        raise InputError(f"--cross-kv is {args.cross_kv!r}; use bf16 or fp8")
    if args.json is not None and not args.json.resolve().parent.is_dir():
        raise InputError(f"--json {args.json}: its folder does not exist; make it first")
    if args.checkpoint.startswith(_RANDOM) and args.prompt:
        raise InputError(f"--prompt needs a checkpoint with a tokenizer; {args.checkpoint} is asked random tokens")


def _loader(name: str, device: torch.device, dtype: torch.dtype) -> Callable[[str], VideoMllama]:
    """Makes the model with a recipe's weights: from its folder, or with random ones of known dimensions."""
    from inference.benchmark.models import MODELS, random_model
    from inference.checkpoint import resolve_checkpoint
    from inference.model.load import load_model
    from model.errors import InputError

    if name.startswith(_RANDOM):
        config = MODELS.get(name.removeprefix(_RANDOM))
        if config is None:
            raise InputError(f"checkpoint {name} names no known model; use {' or '.join(_RANDOM + known for known in MODELS)}")
        return lambda recipe: random_model(config, device, dtype, recipe=recipe)
    folder = resolve_checkpoint(name)
    return lambda recipe: load_model(folder, device, dtype, recipe=recipe)


def _cases(args: argparse.Namespace, model: VideoMllama) -> list[Case]:
    """Each question with the frames; random tokens behind them for a model without a tokenizer."""
    import torch

    from data_pipeline.assets.real import media_bytes
    from data_pipeline.media.decode import sample_video
    from data_pipeline.text.tokenizer import Tokenizer
    from inference.offline import question_rows
    from inference.quantize.effect import Case

    frames = None
    if args.frames:
        source = media_bytes(_CLIP) if args.video is None else str(args.video)
        frames, _ = sample_video(
            source,
            model.config.vision.image_size,
            fps=1.0,
            min_frames=1,
            max_frames=args.frames,
            name=None if args.video else _CLIP,
        )
    count = 0 if frames is None else len(frames)
    if args.checkpoint.startswith(_RANDOM):
        rows = torch.randint(0, model.config.text.vocab_size, (3, 32), generator=torch.Generator().manual_seed(0)).tolist()
        image = [model.config.image_token_id] * count
        return [Case(f"random tokens {number + 1}", image + ids, frames) for number, ids in enumerate(rows)]
    tokenizer = Tokenizer.from_file(model.folder)
    system, template = str(model.details.get("system") or ""), model.details.get("template") or "mllama"
    return [
        Case(question, question_rows(question, count, tokenizer, system=system, template=template), frames)
        for question in args.prompt or _QUESTIONS
    ]


def _engine(args: argparse.Namespace, model: VideoMllama) -> StepEngine:
    from inference.cache.store import KVStore
    from inference.engine import StepEngine
    from inference.quantize.model import round_as_on_gpu

    if args.as_on_gpu:
        round_as_on_gpu(model)
    frames = max(1, args.frames)
    store = KVStore(model.config, model.device, model.dtype, frames=frames, fp8_frames=args.cross_kv == "fp8")
    return StepEngine(model, store, graphs=False)


def _effects(
    args: argparse.Namespace, engine: StepEngine, cases: Sequence[Case], whole: Sequence[Decoded]
) -> list[dict[str, Any]]:
    import dataclasses

    from inference.quantize.effect import compare, follow

    return [
        dataclasses.asdict(compare(case.name, one.logits, follow(engine, case, one.tokens)))
        for case, one in zip(cases, whole, strict=True)
    ]


def _print(found: Sequence[dict[str, Any]], bytes_whole: int, dtype: torch.dtype, device: torch.device) -> None:
    for one in found:
        sizes = " instead of ".join(f"{count / 1e6:,.3f} MB" for count in (one["decoder_bytes"], bytes_whole))
        weights = f"{one['recipe']} weights, keys and values of frames in {one['cross_kv']}"
        print(f"{weights}: a token reads {sizes} of weights ({str(dtype).removeprefix('torch.')} on {device})")
        _print_line("prompt", list(_COLUMNS.values()))
        for effect in one["effects"]:
            cells = [effect[name] for name in _COLUMNS]
            _print_line(effect["case"], ["-" if c is None else str(c) if isinstance(c, int) else f"{c:.6f}" for c in cells])


def _print_line(prompt: str, cells: Sequence[str]) -> None:
    shown = prompt if len(prompt) <= _PROMPT else prompt[: _PROMPT - 1] + "…"
    print(f"  {shown:<{_PROMPT}}" + "".join(f"{cell:>10}" for cell in cells))


def _write(
    args: argparse.Namespace, found: Sequence[dict[str, Any]], bytes_whole: int, dtype: torch.dtype, device: torch.device
) -> None:
    content = {
        "checkpoint": str(args.checkpoint),
        "video": None if not args.frames else str(args.video or _CLIP),
        "frames": args.frames,
        "tokens": args.tokens,
        "as_on_gpu": args.as_on_gpu,
        "dtype": str(dtype).removeprefix("torch."),
        "device": str(device),
        "decoder_bytes": bytes_whole,
        "recipes": list(found),
    }
    args.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
