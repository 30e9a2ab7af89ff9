"""`moss bench latency`."""

from __future__ import annotations

from inference.benchmark.latency import add_arguments, run

__all__ = ["add_arguments", "run"]
