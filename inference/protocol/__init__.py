"""The reference's queue protocol, for programs that were written for it: queues in, queues out, threads as they have them.

`QueueModel` has its two generators, built on this package's own sessions and answers.
"""

from __future__ import annotations

from inference.protocol.markers import DONE, ERROR, ROUND_END, ROUND_START, SILENCE, is_end
from inference.protocol.model import QueueModel

__all__ = ["DONE", "ERROR", "ROUND_END", "ROUND_START", "SILENCE", "QueueModel", "is_end"]
