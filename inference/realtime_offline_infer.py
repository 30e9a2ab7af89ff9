"""`python -m inference.realtime_offline_infer`: ask a real-time checkpoint about a video or an image that is all there."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from inference.commands import add_model_arguments, add_option, add_sampling_arguments, run_command
from inference.offline_infer import answer


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments; CHECKPOINT, PROMPT and VIDEO_PATH or IMAGE_PATH of the environment fill in what is not given."""
    parser = argparse.ArgumentParser(
        prog="realtime_offline_infer",
        description="Ask a real-time checkpoint about a whole video or an image; sampled unless --temperature 0.",
        epilog="example: python -m inference.realtime_offline_infer --checkpoint hf/realtime --video_path clip.mp4",
    )
    add_model_arguments(parser, os.environ.get("CHECKPOINT"))
    add_option(parser, "video_path", help="video to ask about")
    add_option(parser, "image_path", help="image to ask about, instead of a video")
    prompt = os.environ.get("PROMPT", "Describe the video.")
    parser.add_argument("--prompt", default=prompt, help="the question (default: Describe the video.)")
    add_option(parser, "video_fps", type=float, help="frames a second to look at (default: the checkpoint's, else 1)")
    add_option(parser, "video_minlen", type=int, help="frames at least (default: the checkpoint's, else 8)")
    add_option(parser, "video_maxlen", type=int, help="frames at most (default: the checkpoint's, else 256)")
    add_option(parser, "max_new_tokens", type=int, default=1024, help="the answer is cut there (default 1024)")
    add_option(parser, "system_prompt", help="system text, or none, video, text_image, realtime (default: the checkpoint's own)")
    add_sampling_arguments(parser, temperature=1.0, top_k=50)
    add_option(parser, "show_prompt", action="store_true", help="print the whole sequence with its special tokens afterwards")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""

    def run(args: argparse.Namespace) -> int:
        from inference.checkpoint import require_realtime, resolve_checkpoint
        from inference.model.folder import read_config

        if args.video_path is None and args.image_path is None:  # what is typed outranks the environment
            args.video_path, args.image_path = os.environ.get("VIDEO_PATH"), os.environ.get("IMAGE_PATH")
        folder = resolve_checkpoint(args.checkpoint)
        _, details = read_config(folder, None)
        require_realtime(folder, details)
        # A foreign real-time checkpoint expects a line break behind the video; ours are trained without one.
        separator = "" if details.get("stage") else "\n"
        return answer(args, separator=separator, default_system="video", default_frames=(1.0, 8, 256))

    return run_command(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
