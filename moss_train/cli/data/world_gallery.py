"""`moss data world-gallery`: a page of stories with their truth beneath the frames."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the action."""
    parser.add_argument("out", type=Path, metavar="OUT.html", help="the page; it needs no other files")
    parser.add_argument("--level", type=int, nargs="+", default=[1, 2, 3, 4, 5], metavar="N", help="levels 1..5 (default all)")
    parser.add_argument("--clips", type=int, default=2, metavar="N", help="stories of each level (default 2)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first story (default 0)")
    parser.add_argument("--fps", type=float, default=1.0, help="frames a second, 1..8 (default 1)")
    parser.add_argument("--seconds", type=float, default=16, help="length of a story, 8..120 (default 16)")
    parser.add_argument("--size", type=int, default=128, help="height and width in pixels, 64..448 (default 128)")


def run(args: argparse.Namespace) -> int:
    """Run it."""
    from data_pipeline.world.story.gallery import write_gallery

    path = write_gallery(args.out, tuple(args.level), args.clips, args.seed, args.fps, args.seconds, args.size)
    print(f"{path}: {args.clips} stories of each of {len(args.level)} levels")
    return 0
