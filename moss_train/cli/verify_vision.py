"""`moss verify vision CHECKPOINT --video FILE`: exact mode against the published tower, fast modes against exact mode."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TOLERANCE = 1e-5
"""Of exact mode in fp32: of features whose published tower gives other roundings only."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `moss verify vision`."""
    from inference.commands import add_option

    parser.add_argument("checkpoint", type=Path, help="folder in the Hugging Face layout, with its tokenizer")
    parser.add_argument("--video", type=Path, required=True, metavar="FILE", help="a clip like those that will be watched")
    parser.add_argument("--mode", action="append", help="valid_rows, fp8 or fast; several times for several (default all three)")
    add_option(parser, "near_duplicate", type=float, metavar="LEVELS", help="also measure skipping frames that differ by less")
    parser.add_argument("--variants", action="store_true", help="also measure the cheaper form of valid_rows")
    parser.add_argument("--question", default="What happens in the video?", help="asked behind the frames")
    parser.add_argument("--tokens", type=int, default=32, help="length of the reply that is compared (default 32)")
    parser.add_argument("--fps", type=float, default=1.0, help="frames a second taken from the clip (default 1)")
    add_option(parser, "max_frames", type=int, default=64, help="frames at most (default 64)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:N or auto (default)")
    parser.add_argument("--dtype", default="auto", help="fp32, bf16, fp16 or auto: bf16 on a GPU, fp32 elsewhere (default)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything that was found to this file")


def run(args: argparse.Namespace) -> int:
    """Measures and prints; 1 if exact mode is not exact (fp32 only), else 0.

    Raises:
        InputError: bad arguments, checkpoint or video.
    """
    import torch

    from data_pipeline.media.decode import sample_video
    from data_pipeline.text.tokenizer import Tokenizer
    from inference.checkpoint import check_device, dtype_of
    from inference.engine import StepEngine
    from inference.model.load import load_model
    from inference.offline import question_rows
    from inference.vision.effects import alternatives, measure_effects
    from inference.vision.encoder import FrameEncoder
    from inference.vision.mode import vision_mode
    from model.errors import InputError

    for name, value in (("--tokens", args.tokens), ("--max_frames", args.max_frames)):
        if value < 1:
            raise InputError(f"{name} is {value}; it must be at least 1")
    modes = [vision_mode(name) for name in args.mode or ("valid_rows", "fp8", "fast")]
    modes += alternatives() if args.variants else []
    if args.near_duplicate is not None:
        modes.append(vision_mode("exact", near_duplicate=args.near_duplicate))
    device = torch.device(check_device(args.device))
    dtype = dtype_of(args.dtype if args.dtype != "auto" else "bf16" if device.type == "cuda" else "fp32")
    model = load_model(args.checkpoint, device, dtype)
    tokenizer = Tokenizer.from_file(args.checkpoint)
    side = model.config.vision.image_size
    frames, _ = sample_video(str(args.video), side, fps=args.fps, min_frames=1, max_frames=args.max_frames)
    with torch.inference_mode():
        ids = torch.ones(len(frames), dtype=torch.int64, device=device)
        published = torch.cat([model.vision(part.to(device), ids[: len(part)]) for part in frames.split(8)])
        difference = float((FrameEncoder(model.vision).encode(frames) - published).abs().max())
    print(f"{len(frames)} frames of {args.video.name}, {str(dtype).removeprefix('torch.')} on {device}")
    print(f"exact mode: largest difference from the published tower {difference:.3e}")
    prompt = question_rows(args.question, len(frames), tokenizer)
    effects = []
    for effect in measure_effects(StepEngine(model), frames, prompt, modes, tokens=args.tokens):
        effects.append(effect)
        _print_row(effect.row(), header=len(effects) == 1)
    exact = difference <= TOLERANCE * max(1.0, float(published.abs().max()))
    if args.json is not None:
        _write(args, str(dtype), str(device), len(frames), difference, effects)
    return 0 if exact or dtype != torch.float32 else 1


def _print_row(row: Mapping[str, object], *, header: bool) -> None:
    cells = [_cell(value) for value in row.values()]
    widths = [44, *(max(len(name), 9) for name in list(row)[1:])]
    for line in ([list(row)] if header else []) + [cells]:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.6f}" if abs(value) >= 1e-3 else f"{value:.1e}"


def _write(args: argparse.Namespace, dtype: str, device: str, frames: int, difference: float, effects: Sequence[Any]) -> None:
    import dataclasses

    content = {
        "checkpoint": str(args.checkpoint),
        "video": str(args.video),
        "question": args.question,
        "frames": frames,
        "dtype": dtype.removeprefix("torch."),
        "device": device,
        "exact_difference": difference,
        "effects": [dataclasses.asdict(effect) | {"summary": effect.row()} for effect in effects],
    }
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
