"""What becomes of frames that come faster than they are taken: five policies, pure decisions on a queue's contents.

A policy sees the frames that wait, oldest first, and the one that comes, and says what is dropped. Prompts and controls
never pass through here: they are never dropped.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Any

import torch

from model.errors import InputError

if TYPE_CHECKING:
    from inference.session.frame_queue import PendingFrame

BACKLOG, COALESCED, DEGRADED = "backlog", "coalesced", "degraded"
_THUMBNAIL = 64
_MOST_STRIDE = 64


class QueuePolicy(ABC):
    """Decides about one frame at a time."""

    name = ""

    def has_room(self, waiting: int, limit: int) -> bool:
        """Whether a source may hand in a frame now; False makes it wait."""
        return True

    @abstractmethod
    def admit(self, waiting: deque[PendingFrame], frame: PendingFrame, limit: int) -> list[tuple[PendingFrame, str]]:
        """Put `frame` into `waiting`, or not; at most `limit` frames wait afterwards.

        Returns:
            The frames that are dropped by this, each with its reason.
        """

    def taken(self, waiting: int, limit: int) -> None:  # noqa: B027
        """The session took frames; `waiting` are left."""

    def state(self) -> dict[str, Any]:
        """What a restored policy has to know."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Go on from `state`."""


class DropOldest(QueuePolicy):
    """The newest frames are the ones that matter."""

    name = "drop_oldest"

    def admit(self, waiting: deque[PendingFrame], frame: PendingFrame, limit: int) -> list[tuple[PendingFrame, str]]:
        waiting.append(frame)
        return [(waiting.popleft(), BACKLOG)] if len(waiting) > limit else []


class DropNewest(QueuePolicy):
    """What waits is kept, what comes too late goes."""

    name = "drop_newest"

    def admit(self, waiting: deque[PendingFrame], frame: PendingFrame, limit: int) -> list[tuple[PendingFrame, str]]:
        if len(waiting) >= limit:
            return [(frame, BACKLOG)]
        waiting.append(frame)
        return []


class Block(QueuePolicy):
    """Nothing is dropped: the source waits until there is room."""

    name = "block"

    def has_room(self, waiting: int, limit: int) -> bool:
        return waiting < limit

    def admit(self, waiting: deque[PendingFrame], frame: PendingFrame, limit: int) -> list[tuple[PendingFrame, str]]:
        waiting.append(frame)
        return []


class Coalesce(DropOldest):
    """A frame that looks like the newest waiting one replaces it; otherwise as `drop_oldest`.

    Args:
        threshold: mean absolute difference of the thumbnails, in levels of 255, below which two frames look alike.
    """

    name = "coalesce"

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def admit(self, waiting: deque[PendingFrame], frame: PendingFrame, limit: int) -> list[tuple[PendingFrame, str]]:
        if frame.thumbnail is None:
            frame.thumbnail = thumbnail(frame.pixels)
        last = waiting[-1] if waiting else None
        if last is not None and last.pixels.shape == frame.pixels.shape:
            if last.thumbnail is None:  # it came under another policy
                last.thumbnail = thumbnail(last.pixels)
            if float((last.thumbnail - frame.thumbnail).abs().mean()) < self.threshold:
                waiting[-1] = frame
                return [(last, COALESCED)]
        return super().admit(waiting, frame, limit)


class Degrade(DropOldest):
    """Under backlog only every k-th frame is kept; k doubles while the backlog lasts and halves when it is gone.

    Backlog is half the limit; it is gone at a quarter.
    """

    name = "degrade"

    def __init__(self) -> None:
        self.stride = 1
        self._since_kept = 0

    def admit(self, waiting: deque[PendingFrame], frame: PendingFrame, limit: int) -> list[tuple[PendingFrame, str]]:
        self._since_kept += 1
        if self._since_kept < self.stride:
            return [(frame, DEGRADED)]
        self._since_kept = 0
        dropped = super().admit(waiting, frame, limit)
        if len(waiting) * 2 >= limit:
            self.stride = min(2 * self.stride, _MOST_STRIDE)
        return dropped

    def taken(self, waiting: int, limit: int) -> None:
        if waiting * 4 <= limit:
            self.stride = max(1, self.stride // 2)

    def state(self) -> dict[str, Any]:
        return {"stride": self.stride, "since_kept": self._since_kept}

    def restore(self, state: dict[str, Any]) -> None:
        self.stride, self._since_kept = state["stride"], state["since_kept"]


QUEUE_POLICIES = ("drop_oldest", "drop_newest", "block", "coalesce", "degrade")


def check_policy(name: str) -> None:
    """Raises InputError where there is no policy of that name."""
    if name not in QUEUE_POLICIES:
        raise InputError(f"queue_policy is {name!r}; use one of {', '.join(QUEUE_POLICIES)}")


def make_policy(name: str, *, coalesce_threshold: float = 2.0) -> QueuePolicy:
    """The policy of that name, in its first state.

    Raises:
        InputError: no such policy.
    """
    check_policy(name)
    if name == "coalesce":
        return Coalesce(coalesce_threshold)
    simple: dict[str, type[DropOldest | DropNewest | Block | Degrade]] = {
        policy.name: policy for policy in (DropOldest, DropNewest, Block, Degrade)
    }
    return simple[name]()


def thumbnail(pixels: torch.Tensor) -> torch.Tensor:
    """Grey levels fp32 [64, 64] (or smaller, for smaller frames) of a frame uint8 [3, S, S]."""
    grey = pixels.to(torch.float32).mean(0, keepdim=True)
    size = min(_THUMBNAIL, pixels.shape[-1])
    return torch.nn.functional.adaptive_avg_pool2d(grey, size)[0].cpu()
