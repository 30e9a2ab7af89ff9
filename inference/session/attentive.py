"""Who gets the interpreter while a session runs in real time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

SWITCH_SECONDS = 0.0005
"""For which one thread may keep the interpreter while another wants it. Python's 0.005 are as long as a token takes."""


@contextmanager
def attentive() -> Iterator[None]:
    """The session's thread gets its turn soon after it has waited for the device, and so does whoever hands in frames."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
