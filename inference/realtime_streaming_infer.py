"""`python -m inference.realtime_streaming_infer`: watch a video as if it were live; speak, stay silent, hear prompts."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from inference.commands import (
    add_model_arguments,
    add_option,
    add_sampling_arguments,
    load_engine,
    run_command,
    sampling_from,
    system_text,
)
from model.errors import InputError

if TYPE_CHECKING:
    from inference.session import RealtimeSession

_PROMPT_AT = 1.0
"""Seconds at which a prompt without a time comes, so that a frame or two are already there."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    add_model_arguments(parser)
    add_option(parser, "video_path", required=True, help="video to watch")
    parser.add_argument("--prompt", action="append", default=[], help="what the user says; may be given several times")
    add_option(
        parser,
        "prompt_at",
        type=float,
        action="append",
        default=[],
        metavar="SECONDS",
        help="when the n-th --prompt is said (default: the first at 1 second)",
    )
    parser.add_argument("--interactive", action="store_true", help="take further prompts from the terminal while it runs")
    parser.add_argument("--fps", type=float, default=1.0, help="frames a second that reach the model (default 1)")
    add_option(parser, "max_new_tokens", type=int, default=86400, help="stop after so many tokens (default 86400)")
    add_option(
        parser, "idle_timeout", type=float, default=5.0, help="end after so many silent seconds past the video (default 5)"
    )
    add_option(
        parser, "tokens_per_second", type=float, help="speak at most so fast (default: no limit; 16 a frame with --virtual_clock)"
    )
    add_option(
        parser, "silence_threshold", type=float, default=0.0, help="speak where silence is less likely than this (default 0: off)"
    )
    add_option(parser, "system_prompt", help="system text, or none, video, text_image, realtime (default: the checkpoint's own)")
    add_option(parser, "virtual_clock", action="store_true", help="do not wait: run as fast as possible, with exact times")
    add_option(parser, "max_frames", type=int, default=65536, help="frames remembered; later ones are rejected (default 65536)")
    add_sampling_arguments(parser, temperature=0.0, top_k=0)
    parser.add_argument("--trace", help="write all events to this JSON-lines file")


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


def run(args: argparse.Namespace) -> int:
    """Stream the video through the checkpoint and print what it says, when."""
    from inference.arrivals import Arrival, Inbox, merge
    from inference.clock import VirtualClock, WallClock
    from inference.evaluation.storage import check_folder
    from inference.media_source import video_arrivals
    from inference.session import RealtimeSession, SessionSettings
    from inference.terminal import StreamPrinter, listen

    if args.interactive and args.virtual_clock:
        raise InputError("--interactive needs real time; leave out --virtual_clock")
    prompts = [Arrival(t=t, prompt=text) for t, text in prompt_schedule(args.prompt, args.prompt_at)]
    if args.trace:
        if Path(args.trace).is_dir():
            raise InputError(f"--trace {args.trace} is a folder; name a file")
        check_folder(Path(args.trace).parent)
    sampling = sampling_from(args, args.silence_threshold)
    pace = args.tokens_per_second
    if pace is None and args.virtual_clock:
        pace = 16.0 * args.fps
    engine, tokenizer = load_engine(args, realtime=True)
    model = engine.model
    frames, duration = video_arrivals(args.video_path, args.fps, model.config.vision.image_size)
    settings = SessionSettings(
        system=system_text(args.system_prompt, model.details, "realtime"),
        sampling=sampling,
        tokens_per_second=pace,
        max_new_tokens=args.max_new_tokens,
        idle_timeout=args.idle_timeout,
        max_frames=args.max_frames,
    )
    inbox = Inbox(merge(prompts, frames), live=args.interactive)
    clock = VirtualClock() if args.virtual_clock else WallClock()
    printer = StreamPrinter(sys.stdout)
    session = RealtimeSession(engine, tokenizer, inbox, clock, settings, printer)
    if args.interactive:
        listen(sys.stdin, inbox, clock)
    over = max([duration, *(arrival.t for arrival in prompts)]) + args.idle_timeout
    try:
        session.run(until=over if args.virtual_clock else None)
    finally:
        printer.close()  # an error or an interruption is said on a line of its own
    _report(args, session)
    return 0


def _report(args: argparse.Namespace, session: RealtimeSession) -> None:
    """Write the trace where one is wanted, and the delays of a run in real time to stderr."""
    from inference.evaluation.schema import Trace
    from inference.evaluation.scorers.latency import latency_scores
    from inference.evaluation.storage import save_traces

    details = {
        "checkpoint": args.checkpoint,
        "clock": "virtual" if args.virtual_clock else "wall",
        "fps": args.fps,
        "frames": session.ledger.as_dict(),
        "end": session.end_reason,
    }
    trace = Trace(scenario_id=Path(args.video_path).stem, mode="push", events=session.events, engine=details)
    if args.trace:
        save_traces(args.trace, [trace])
    if not args.virtual_clock:
        scores = latency_scores(trace)
        for name in ("frame_latency", "staleness", "first_token"):
            if scores[name] is not None:
                values = "  ".join(f"{key} {value * 1000:.0f} ms" for key, value in scores[name].items())
                print(f"{name}: {values}", file=sys.stderr)


def build_parser() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = argparse.ArgumentParser(
        prog="realtime_streaming_infer",
        description="Watch a video as if it were live. Tokens are printed as they come, silence once per silent run.",
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
