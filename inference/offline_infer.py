"""`python -m inference.offline_infer`: ask one question about a video or an image that is all there."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from inference.commands import (
    add_model_arguments,
    add_option,
    add_sampling_arguments,
    load_engine,
    run_command,
    sampling_from,
    system_text,
)
from inference.thinking import AnswerOnly
from model.errors import InputError

CHECKPOINT = "models/moss-video-sft"
VIDEO = "data/example_video.mp4"


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="offline_infer",
        description="Ask a checkpoint about a video or an image; the answer is printed as it is decoded.",
        epilog="example: python -m inference.offline_infer --checkpoint hf/sft --video_path clip.mp4 --prompt 'What happens?'",
    )
    add_model_arguments(parser, CHECKPOINT)
    add_media_arguments(parser, most=16)
    parser.add_argument("--prompt", default="Describe the video.", help="the question (default: Describe the video.)")
    add_option(parser, "max_new_tokens", type=int, default=512, help="the answer is cut there (default 512)")
    add_option(parser, "system_prompt", help="system text, or none, video, text_image, realtime (default: the checkpoint's own)")
    add_sampling_arguments(parser, temperature=0.0, top_k=0)
    add_option(parser, "show_prompt", action="store_true", help="print the whole sequence with its special tokens afterwards")
    return parser


def add_media_arguments(parser: argparse.ArgumentParser, *, most: int) -> None:
    """--video_path, --image_path and how a video is sampled.

    Args:
        most: frames at most where neither the user nor the checkpoint says so.
    """
    add_option(parser, "video_path", help=f"video to ask about (default {VIDEO}, unless there is an image)")
    add_option(parser, "image_path", help="image to ask about, instead of a video")
    add_option(parser, "video_fps", type=float, help="frames a second to look at (default: the checkpoint's, else 1)")
    add_option(parser, "video_minlen", type=int, help="frames at least (default: the checkpoint's, else 8)")
    add_option(parser, "video_maxlen", type=int, help=f"frames at most (default: the checkpoint's, else {most})")
    add_option(parser, "vision_chunked_length", type=int, default=64, help="frames encoded at a time (default 64)")


def check_checkpoint(args: argparse.Namespace, default: str) -> None:
    """Say that nothing was given rather than look for the default at a hub.

    Raises:
        InputError: the checkpoint is the default's name, and no such folder is here.
    """
    if args.checkpoint == default and not Path(default).is_dir():
        raise InputError(f"--checkpoint was not given, and its default {default} is no folder here; name one, or a hub id")


def choose_media(args: argparse.Namespace) -> None:
    """The default video where neither a video nor an image is named.

    Raises:
        InputError: both are named.
    """
    if args.video_path is not None and args.image_path is not None:
        raise InputError("give exactly one of --video_path and --image_path")
    if args.video_path is None and args.image_path is None:
        if not Path(VIDEO).is_file():
            raise InputError(f"give exactly one of --video_path and --image_path; the default video {VIDEO} is not here")
        args.video_path = VIDEO


def answer(
    args: argparse.Namespace,
    *,
    separator: str,
    system: Callable[[dict[str, Any]], str],
    most: int,
    hide_thinking: bool = False,
) -> int:
    """Load, read the media, decode, print.

    Args:
        separator: text between the video and the question.
        system: the system text, from the details that the checkpoint has about itself.
        most: frames at most where neither the user nor the checkpoint says so.
        hide_thinking: print the answer without thoughts.
    """
    from inference.offline import Answerer, question_rows
    from inference.sources.media import read_media

    for name in ("max_new_tokens", "vision_chunked_length"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name} is {getattr(args, name)}; it must be at least 1")
    choose_media(args)
    sampling = sampling_from(args)
    engine, tokenizer = load_engine(args)
    details = engine.model.details
    own = details.get("frames") or {}
    fps, least, limit = (own.get(n, d) for n, d in (("fps", 1.0), ("min_frames", 8), ("max_frames", most)))
    frames = read_media(
        args.video_path,
        args.image_path,
        engine.model.config.vision.image_size,
        fps=fps if args.video_fps is None else args.video_fps,
        min_frames=least if args.video_minlen is None else args.video_minlen,
        max_frames=limit if args.video_maxlen is None else args.video_maxlen,
    )
    template = details.get("template") or "mllama"
    rows = question_rows(args.prompt, len(frames), tokenizer, system=system(details), template=template, separator=separator)
    chunk = args.vision_chunked_length
    answerer = Answerer(engine, tokenizer, sampling=sampling, max_new_tokens=args.max_new_tokens, chunk=chunk)
    if hide_thinking:
        answer_only = AnswerOnly(print_piece)
        reply = answerer.reply(rows, frames, answer_only)
        answer_only.close()
    else:
        reply = answerer.reply(rows, frames, print_piece)
    print()
    if args.show_prompt:
        print(tokenizer.decode([*rows, *reply]))
    return 0


def print_piece(piece: str) -> None:
    """Part of a line."""
    print(piece, end="", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""

    def run(args: argparse.Namespace) -> int:
        check_checkpoint(args, CHECKPOINT)
        return answer(args, separator="", system=lambda details: system_text(args.system_prompt, details, "none"), most=16)

    return run_command(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
