"""`python -m inference.realtime_streaming_infer`: watch a video or something live; speak, stay silent, hear prompts."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence

from inference.cache.policies.arguments import add_policy_arguments
from inference.commands import add_model_arguments, add_option, add_sampling_arguments, run_command
from model.errors import InputError

_PROMPT_AT = 1.0
"""Seconds at which a prompt without a time comes, so that a frame or two are already there."""
QUEUE_POLICIES = ("drop_oldest", "drop_newest", "block", "coalesce", "degrade")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments; CHECKPOINT of the environment fills in a --checkpoint that is not given."""
    add_model_arguments(parser, os.environ.get("CHECKPOINT"))
    _add_source_arguments(parser.add_argument_group("what it watches"))
    _add_speech_arguments(parser.add_argument_group("how it speaks"))
    add_sampling_arguments(parser, temperature=0.0, top_k=0)
    add_policy_arguments(parser.add_argument_group("what it remembers"))
    _add_output_arguments(parser.add_argument_group("what is shown and written"))


def _add_source_arguments(group: argparse._ArgumentGroup) -> None:
    add_option(
        group,
        "source",
        help="a video file, a folder of pictures, cam:0 or /dev/video0, rtsp://..., http(s)://..., world:SEED (a synthetic clip)",
    )
    add_option(group, "video_path", help="the same for a video file, as the reference calls it")
    group.add_argument("--follow", action="store_true", help="of a folder: go on with pictures that are put into it later")
    group.add_argument("--fps", type=float, default=1.0, help="frames a second that reach the model (default 1)")
    add_option(group, "queue_policy", choices=QUEUE_POLICIES, default="drop_oldest", help="what gives way when frames pile up")
    add_option(group, "max_pending_frames", type=int, default=256, help="frames that may wait (default 256)")
    add_option(group, "max_frames", type=int, default=65536, help="frames remembered; later ones are rejected (default 65536)")
    add_option(
        group, "encode_on_arrival", action="store_true", help="encode frames while the model speaks (on a GPU that is so anyway)"
    )
    add_option(group, "virtual_clock", action="store_true", help="do not wait: run as fast as possible, with exact times")
    group.add_argument("--replay", metavar="TRACE", help="run the stream of this trace again, to the token, on the same --source")


def _add_speech_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--prompt", action="append", default=[], help="what the user says; may be given several times")
    add_option(
        group,
        "prompt_at",
        type=float,
        action="append",
        default=[],
        metavar="SECONDS",
        help="when the n-th --prompt is said (default: the first at 1 second)",
    )
    group.add_argument("--interactive", action="store_true", help="take prompts and orders from the keyboard while it runs")
    add_option(group, "max_new_tokens", type=int, default=86400, help="stop after so many tokens (default 86400)")
    add_option(group, "idle_timeout", type=float, default=5.0, help="end after so many silent seconds past the end (default 5)")
    add_option(
        group, "tokens_per_second", type=float, help="speak at most so fast (default: no limit; 16 a frame with --virtual_clock)"
    )
    add_option(group, "trained_pace", action="store_true", help="speak as fast as the training data did, if the checkpoint says")
    add_option(
        group, "silence_threshold", type=float, default=0.0, help="speak where silence is less likely than this (default 0: off)"
    )
    add_option(group, "system_prompt", help="system text, or none, video, text_image, realtime (default: the checkpoint's own)")


def _add_output_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--plain", action="store_true", help="plain lines also on a terminal, instead of the live view")
    add_option(group, "show_frames", action="store_true", help="draw the newest frame in the live view")
    group.add_argument("--trace", help="write all events to this JSON-lines file (FILE.part while it runs)")
    group.add_argument("--srt", help="write what is said as subtitles to this file (FILE.part while it runs)")


def prompt_schedule(prompts: Sequence[str], times: Sequence[float]) -> list[tuple[float, str]]:
    """(time, text) of every prompt, in order of time.

    Raises:
        InputError: another number of times than prompts (a single prompt may go without), or a negative time.
    """
    if len(prompts) == 1 and not times:
        times = [_PROMPT_AT]
    if len(prompts) != len(times):
        raise InputError(f"there are {len(prompts)} --prompt and {len(times)} --prompt_at; give one time per prompt")
    for t in times:
        if not 0 <= t < math.inf:
            raise InputError(f"--prompt_at is {t:g}; it must be 0 or more and finite")
    return sorted(zip(times, prompts, strict=True), key=lambda item: item[0])


def source_name(args: argparse.Namespace) -> str:
    """What is watched: --source or --video_path.

    Raises:
        InputError: both or none are given.
    """
    if args.source is not None and args.video_path is not None:
        raise InputError("give one of --source and --video_path; the second is the reference's name for a video file")
    name = args.source or args.video_path
    if not name:
        raise InputError("nothing to watch; give --source with a file, a folder, cam:0, an address or world:SEED")
    return str(name)


def run(args: argparse.Namespace) -> int:
    """Stream the source through the checkpoint and tell what it says, when; returns the exit code."""
    from inference.streaming import StreamRun, replay

    if args.trained_pace and args.tokens_per_second is not None:
        raise InputError("--trained_pace and --tokens_per_second are both given; a stream keeps one pace, leave one out")
    if args.interactive and args.virtual_clock:
        raise InputError("--interactive needs real time; leave out --virtual_clock")
    name = source_name(args)
    prompts = prompt_schedule(args.prompt, args.prompt_at)
    return replay(args, name) if args.replay else StreamRun(args, name, prompts).run()


def build_parser() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = argparse.ArgumentParser(
        prog="realtime_streaming_infer",
        description="Watch a video, a camera or an address live. Tokens are printed as they come, silence once per silent run.",
        epilog="example: python -m inference.realtime_streaming_infer --checkpoint hf/realtime --video_path clip.mp4 "
        "--prompt 'What do you see?' --prompt_at 3",
    )
    add_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return run_command(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
