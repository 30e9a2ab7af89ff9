"""`python -m inference.offline_infer`: ask one question about a video or an image that is all there."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from inference.commands import (
    add_model_arguments,
    add_option,
    add_sampling_arguments,
    load_engine,
    run_command,
    sampling_from,
    system_text,
)


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="offline_infer",
        description="Ask a checkpoint about a video or an image; the answer is printed as it is decoded.",
        epilog="example: python -m inference.offline_infer --checkpoint hf/sft --video_path clip.mp4 --prompt 'What happens?'",
    )
    add_model_arguments(parser)
    add_option(parser, "video_path", help="video to ask about")
    add_option(parser, "image_path", help="image to ask about, instead of a video")
    parser.add_argument("--prompt", default="Describe the video.", help="the question (default: Describe the video.)")
    add_option(parser, "video_fps", type=float, help="frames a second to look at (default: the checkpoint's, else 1)")
    add_option(parser, "video_minlen", type=int, help="frames at least (default: the checkpoint's, else 8)")
    add_option(parser, "video_maxlen", type=int, help="frames at most (default: the checkpoint's, else 16)")
    add_option(parser, "max_new_tokens", type=int, default=512, help="the answer is cut there (default 512)")
    add_option(parser, "system_prompt", help="system text, or none, video, text_image, realtime (default: the checkpoint's own)")
    add_sampling_arguments(parser, temperature=0.0, top_k=0)
    add_option(parser, "show_prompt", action="store_true", help="print the whole sequence with its special tokens afterwards")
    return parser


def answer(args: argparse.Namespace, *, separator: str, default_system: str, default_frames: tuple[float, int, int]) -> int:
    """Load, read the media, decode, print.

    Args:
        separator: text between the video and the question.
        default_system: name of the system text for a checkpoint that does not say its own.
        default_frames: (fps, least, most) for such a checkpoint.
    """
    from inference.sources.media import read_media
    from inference.offline import Answerer, question_rows
    from model.errors import InputError

    if args.max_new_tokens < 1:
        raise InputError(f"--max_new_tokens is {args.max_new_tokens}; it must be at least 1")
    if (args.video_path is None) == (args.image_path is None):
        raise InputError("give exactly one of --video_path and --image_path")
    sampling = sampling_from(args)
    engine, tokenizer = load_engine(args)
    details = engine.model.details
    own = details.get("frames") or {}
    fps, least, most = (own.get(n, d) for n, d in zip(("fps", "min_frames", "max_frames"), default_frames, strict=True))
    frames = read_media(
        args.video_path,
        args.image_path,
        engine.model.config.vision.image_size,
        fps=fps if args.video_fps is None else args.video_fps,
        min_frames=least if args.video_minlen is None else args.video_minlen,
        max_frames=most if args.video_maxlen is None else args.video_maxlen,
    )
    system = system_text(args.system_prompt, details, default_system)
    template = details.get("template") or "mllama"
    rows = question_rows(args.prompt, len(frames), tokenizer, system=system, template=template, separator=separator)

    def show(piece: str) -> None:
        print(piece, end="", flush=True)

    answerer = Answerer(engine, tokenizer, sampling=sampling, max_new_tokens=args.max_new_tokens)
    reply = answerer.reply(rows, frames, show)
    print()
    if args.show_prompt:
        print(tokenizer.decode([*rows, *reply]))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""

    def run(args: argparse.Namespace) -> int:
        return answer(args, separator="", default_system="none", default_frames=(1.0, 8, 16))

    return run_command(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
