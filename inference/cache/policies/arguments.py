"""Policies as they are written on a command line."""

from __future__ import annotations

import argparse
import math
from typing import Any, Protocol

from inference.cache.policies.full import Full
from inference.cache.policies.offload import Offload
from inference.cache.policies.operations import CrossPolicy
from inference.cache.policies.policy import CachePolicy
from inference.cache.policies.pooled import PooledAged
from inference.cache.policies.text import TextWindow
from inference.cache.policies.window import SinkWindow, Window
from model.errors import InputError

FORMS = {
    "full": "full",
    "window": "window:FRAMES or window:SECONDSs[:FRAMES]",
    "sink_window": "sink_window:SINK:FRAMES",
    "pooled": "pooled:FRAMES[:BATCHES[:CLASS_PAGES]]",
    "offload": "offload:FRAMES:RECALLED[:CAPACITY]",
}
FRAMES_PER_SECOND = 4
"""A window of seconds holds at most so many frames a second, unless told otherwise."""


def parse_policy(text: str) -> CrossPolicy:
    """A policy of frames from its command-line form.

    Raises:
        InputError: another form, with the right one.
    """
    name, *rest = text.split(":")
    if name not in FORMS:
        raise InputError(f"--cross_policy is {text!r}; use one of {'; '.join(FORMS.values())}")
    wrong = InputError(f"--cross_policy is {text!r}; write it as {FORMS[name]}, with whole numbers")
    if name == "window" and rest and rest[0].endswith("s"):
        try:
            seconds = float(rest[0][:-1])
        except ValueError:
            raise wrong from None
        if not math.isfinite(seconds):
            raise wrong
        return Window(_numbers(rest[1:], 0, 1, wrong)[0] if rest[1:] else math.ceil(seconds * FRAMES_PER_SECOND), seconds)
    if name == "full":
        _numbers(rest, 0, 0, wrong)
        return Full()
    if name == "window":
        return Window(*_numbers(rest, 1, 1, wrong))
    if name == "sink_window":
        return SinkWindow(*_numbers(rest, 2, 2, wrong))
    if name == "pooled":
        return PooledAged(*_numbers(rest, 1, 3, wrong))
    return Offload(*_numbers(rest, 2, 3, wrong))


def parse_text_window(text: str) -> TextWindow | None:
    """`SINK:WINDOW` rows, or `full`.

    Raises:
        InputError: another form.
    """
    if text == "full":
        return None
    return TextWindow(
        *_numbers(text.split(":"), 2, 2, InputError(f"--text_window is {text!r}; write it as SINK:WINDOW in rows, or full"))
    )


def add_policy_arguments(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """--cross_policy, --text_window, --position_limit."""
    for name, options in (
        ("cross_policy", {"default": "full", "help": f"frames that stay: {'; '.join(FORMS.values())} (default full)"}),
        ("text_window", {"default": "full", "help": "text rows that stay: SINK:WINDOW, or full (default)"}),
        (
            "position_limit",
            {"type": int, "default": None, "help": "number positions anew before they reach this (needs --text_window)"},
        ),
    ):
        settings: dict[str, Any] = options
        parser.add_argument(f"--{name}", f"--{name.replace('_', '-')}", dest=name, **settings)


class PolicyArguments(Protocol):
    """Parsed arguments, or anything else with these three."""

    @property
    def cross_policy(self) -> str: ...

    @property
    def text_window(self) -> str: ...

    @property
    def position_limit(self) -> int | None: ...


def policy_from(args: PolicyArguments | argparse.Namespace) -> CachePolicy:
    """The policy of parsed arguments.

    Raises:
        InputError: a value that cannot be.
    """
    return CachePolicy(
        cross=parse_policy(args.cross_policy), text=parse_text_window(args.text_window), position_limit=args.position_limit
    )


def _numbers(texts: list[str], least: int, most: int, wrong: InputError) -> list[int]:
    if not least <= len(texts) <= most or not all(text.isascii() and text.isdigit() for text in texts):
        raise wrong
    return [int(text) for text in texts]
