"""Addresses of streams: how they look, and how they are shown."""

from __future__ import annotations

import re

SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "srt", "udp", "rtp", "tcp")
"""Of addresses that FFmpeg reads from a network."""


def is_address(text: str) -> bool:
    """Whether a source's name is such an address."""
    scheme, found, _ = text.partition("://")
    return bool(found) and scheme.lower() in SCHEMES


def shown_address(url: str) -> str:
    """The address without a password; other names as they are."""
    return re.sub(r"(?<=://)([^/@:]*):[^/@]*@", r"\1:***@", url)
