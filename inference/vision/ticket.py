"""A frame that was handed in to be encoded, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from inference.vision.region import Region


@dataclass
class Encoded:
    """What one call yielded for several frames."""

    features: Tensor
    """[n, P, H]"""
    raw_kv: Tensor | None
    """[layers, n, P, 2 * kv_heads * head_dim]: keys, not rotated and not normalised, then values, of all cross layers."""
    event: torch.cuda.Event | None
    """Passed when the above are there; None on a CPU."""

    @property
    def ready(self) -> bool:
        """Whether the device is through; never waits."""
        return self.event is None or bool(self.event.query())

    def order(self) -> None:
        """The current stream's next kernels run after this call's; the host does not wait."""
        if self.event is None:
            return
        stream = torch.cuda.current_stream(self.features.device)
        stream.wait_event(self.event)
        for tensor in (self.features, self.raw_kv):
            if tensor is not None:
                tensor.record_stream(stream)  # its memory is not reused before this stream is through with it


@dataclass(eq=False)
class Job:
    """One frame to encode, for as many tickets as show it."""

    frame: Tensor | None
    """uint8 [C, S, S]; let go when it is launched."""
    region: Region
    holders: int = 0
    encoded: Encoded | None = None
    index: int = 0
    """Among the frames of its call."""
    cancelled: bool = field(default=False)
    error: Exception | None = None
    """Why its call could not be launched."""

    @property
    def launched(self) -> bool:
        """Whether it waits no longer, be it in vain."""
        return self.encoded is not None or self.error is not None


class FrameTicket:
    """The claim to one frame's features.

    Made by `FrameEncoder.submit`. A ticket that is dropped without a word is safe: its frame is encoded for nothing.
    """

    def __init__(self, job: Job, advance: Callable[[Job | None], None], withdraw: Callable[[Job], None]) -> None:
        self._job = job
        self._advance, self._withdraw = advance, withdraw
        self._cancelled = False
        job.holders += 1

    @property
    def ready(self) -> bool:
        """Whether `features` does not wait: they are there, or there is an error to raise.

        Also launches frames that wait for the encoder, if it is idle.
        """
        if self._cancelled:
            return False
        self._advance(None)
        if self._job.error is not None:
            return True
        encoded = self._job.encoded
        return encoded is not None and encoded.ready

    def features(self) -> Tensor:
        """[1, P, H]. Launches the frame if it still waits, and orders the current stream behind it; the host never waits.

        Raises:
            Exception: whatever ended the call that the frame was part of.
        """
        encoded, index = self._claim()
        return encoded.features[index : index + 1]

    def raw_kv(self) -> Tensor | None:
        """[layers, 1, P, 2 * kv_heads * head_dim], what needs no position; None if the encoder has no projections."""
        encoded, index = self._claim()
        return None if encoded.raw_kv is None else encoded.raw_kv[:, index : index + 1]

    def cancel(self) -> None:
        """The frame is not wanted any more; if no call holds it yet, it is never encoded. Any number of times."""
        if not self._cancelled:
            self._cancelled = True
            self._withdraw(self._job)

    def _claim(self) -> tuple[Encoded, int]:
        if self._cancelled:
            raise RuntimeError("this frame was cancelled; it has no features")
        if not self._job.launched:
            self._advance(self._job)
        if self._job.error is not None:
            raise self._job.error
        encoded = self._job.encoded
        assert encoded is not None
        encoded.order()
        return encoded, self._job.index
