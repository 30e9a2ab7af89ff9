"""`moss data preview`."""

from __future__ import annotations

import argparse
from pathlib import Path

from model.errors import InputError
from moss_train.cli.data.shared import progress
from moss_train.cli.data.stage_choice import add_stage_arguments, config_of, tokenizer_file

STAGE = "sft_offline"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the action."""
    parser.add_argument("source", help="folder of shards, a single shard, or an annotation file")
    parser.add_argument("out", type=Path, help="page to write, .html")
    parser.add_argument("--samples", type=int, default=8, help="samples, evenly over the shards (default: 8)")
    parser.add_argument("--keys", nargs="+", default=[], metavar="KEY", help="these samples instead")
    parser.add_argument("--packs", type=int, metavar="N", help="show the packs of N samples (default: data.packing_buffer)")
    parser.add_argument("--image-size", type=int, metavar="PIXELS", help="side of the model's square (default: the model's)")
    parser.add_argument("--seed", type=int, default=0, help="of the frame jitter (default: 0)")
    add_stage_arguments(parser, STAGE)


def run(args: argparse.Namespace) -> int:
    """Run it."""
    from data_pipeline.inspect.preview.page import write_page
    from data_pipeline.inspect.preview.preview import PreviewSettings, preview
    from data_pipeline.loader.plan_rules import plan_rules
    from data_pipeline.text.tokenizer import Tokenizer
    from model.config import VideoMllamaConfig

    _check(args)
    config = config_of(args, STAGE)
    assert config is not None  # there is a default stage
    rules = plan_rules(config.stage)
    size = args.image_size or VideoMllamaConfig.from_dict(config.model).vision.image_size
    tokenizer = Tokenizer.from_file(tokenizer_file(args, config))
    settings = PreviewSettings(rules, tokenizer, size, args.seed, config.data.samples_per_pack)
    packed = config.data.packing_buffer if args.packs is None else args.packs
    with progress("decoding samples") as advance:
        found = preview(args.source, settings, samples=args.samples, keys=args.keys, packed=packed, on_sample=advance)
    facts = [
        ("stage", config.stage.name),
        ("rows of a pack", str(rules.sequence_length)),
        ("frames of a pack", str(rules.max_frames)),
        ("frames of a video", f"{rules.fps:g} a second, {rules.video_min_frames} to {rules.video_max_frames}"),
        ("frame jitter in timed dialogues", f"{rules.jitter:g}"),
        ("square", f"{size} x {size} pixels"),
        ("tokenizer", f"{tokenizer.vocab_size} entries"),
    ]
    write_page(args.out, found, f"Samples of {args.source}", facts)
    print(f"{args.out}: {len(found.samples)} samples, {len(found.packs)} packs, {args.out.stat().st_size / 1e6:.1f} MB")
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.out.suffix not in (".html", ".htm") or args.out.is_dir():
        raise InputError(f"{args.out} is not the name of a page; give a file that ends in .html")
    for name, value, least in (("samples", args.samples, 1), ("packs", args.packs, 0), ("image-size", args.image_size, 1)):
        if value is not None and value < least:
            raise InputError(f"--{name} is {value}; it must be at least {least}")
