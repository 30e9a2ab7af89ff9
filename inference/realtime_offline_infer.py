"""`python -m inference.realtime_offline_infer`: ask a real-time checkpoint about a video or an image that is all there."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from inference.commands import add_model_arguments, add_option, add_sampling_arguments, run_command, system_text
from inference.offline_infer import add_media_arguments, answer
from inference.thinking import SYSTEM_PROMPT_TYPES, THINKING_MODES, system_name


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments; CHECKPOINT, PROMPT and VIDEO_PATH or IMAGE_PATH of the environment fill in what is not given."""
    parser = argparse.ArgumentParser(
        prog="realtime_offline_infer",
        description="Ask a real-time checkpoint about a whole video or an image; sampled unless --temperature 0.",
        epilog="example: python -m inference.realtime_offline_infer --checkpoint hf/realtime --video_path clip.mp4",
    )
    add_model_arguments(parser, os.environ.get("CHECKPOINT"))
    add_media_arguments(parser, most=256)
    prompt = os.environ.get("PROMPT", "Describe the video.")
    parser.add_argument("--prompt", default=prompt, help="the question (default: Describe the video.)")
    add_option(parser, "max_new_tokens", type=int, default=1024, help="the answer is cut there (default 1024)")
    add_option(
        parser,
        "thinking_mode",
        choices=THINKING_MODES,
        default="no_thinking",
        help="deep_thinking asks for <thinking>...</thinking> before <answer>...</answer> (default no_thinking)",
    )
    add_option(parser, "hide_thinking", action="store_true", help="print the answer alone, without thoughts and tags")
    add_option(
        parser,
        "system_prompt_type",
        choices=SYSTEM_PROMPT_TYPES,
        help="which default system text fits the question (default: text_image with an image, else video)",
    )
    add_option(parser, "system_prompt", help="system text, or none, video, text_image, realtime (default: the checkpoint's own)")
    add_sampling_arguments(parser, temperature=1.0, top_k=50)
    add_option(parser, "show_prompt", action="store_true", help="print the whole sequence with its special tokens afterwards")
    return parser


def system_of(args: argparse.Namespace, details: dict[str, Any]) -> str:
    """The system text: as given; else, with thinking, the one that asks for it; else the checkpoint's own, or the default."""
    kind = args.system_prompt_type or ("text_image" if args.image_path is not None else "video")
    name = system_name(args.thinking_mode, kind)
    given = args.system_prompt
    if given is None and (args.thinking_mode != "no_thinking" or args.system_prompt_type is not None):
        given = name  # asked for by name, whatever the checkpoint has
    return system_text(given, details, name)


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
        system = partial(system_of, args)
        return answer(args, separator=separator, system=system, most=256, hide_thinking=args.hide_thinking)

    return run_command(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
