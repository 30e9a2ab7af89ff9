"""`moss stream`: the same program as `python -m inference.realtime_streaming_infer`."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from inference.realtime_streaming_infer import add_arguments as add

    add(parser)


def run(args: argparse.Namespace) -> int:
    """Watch a video with a real-time checkpoint."""
    from inference.realtime_streaming_infer import run as stream

    return stream(args)
