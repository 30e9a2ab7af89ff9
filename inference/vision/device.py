"""Streams and uploads of the encoder: the one place of the vision path that names CUDA's own objects, beside graphs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class EncoderStreams:
    """The encoder's own stream, and one for copies. On a CPU both are absent and everything runs in order.

    The encoder's stream has the lowest priority: a decoder that wants its kernels to go first takes a stream of priority -1.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.compute = torch.cuda.Stream(device, priority=0) if device.type == "cuda" else None
        self.copies = torch.cuda.Stream(device, priority=0) if device.type == "cuda" else None

    def follow(self) -> None:
        """The encoder's stream goes on behind what was launched on the current one so far, as making the weights was."""
        if self.compute is not None:
            self.compute.wait_stream(torch.cuda.current_stream(self.device))

    @contextmanager
    def computing(self, *inputs: Tensor) -> Iterator[None]:
        """What is launched inside runs on the encoder's stream, after what made `inputs` where these are on the device."""
        if self.compute is None:
            yield
            return
        outer = torch.cuda.current_stream(self.device)
        on_device = [tensor for tensor in inputs if tensor.is_cuda]
        if on_device:
            self.compute.wait_stream(outer)
        for tensor in on_device:
            tensor.record_stream(self.compute)
        with torch.cuda.stream(self.compute):
            yield

    def mark(self) -> torch.cuda.Event | None:
        """An event behind everything launched on the encoder's stream so far."""
        if self.compute is None:
            return None
        event = torch.cuda.Event()
        event.record(self.compute)
        return event

    def hand_over(self, tensor: Tensor) -> Tensor:
        """The current stream goes on behind the encoder's; the host does not wait."""
        if self.compute is not None:
            outer = torch.cuda.current_stream(self.device)
            outer.wait_stream(self.compute)
            tensor.record_stream(outer)
        return tensor

    def upload(self, frames: Tensor, size: int) -> Tensor:
        """Frames [n, C, h, w], n <= size -> [size, C, h, w] on the device, zeros behind; ready for the encoder's stream.

        From the host's memory through pinned memory on the stream of copies: the next chunk travels while one is computed.
        """
        shape = (size, *frames.shape[1:])
        if self.compute is None or self.copies is None or frames.is_cuda:
            if size == len(frames):
                return frames.contiguous()
            return torch.cat([frames, frames.new_zeros(size - len(frames), *frames.shape[1:])])
        with torch.cuda.stream(self.copies):
            target = torch.empty(shape, dtype=frames.dtype, device=self.device)
            self._copy(frames, target)
        self.compute.wait_stream(self.copies)
        target.record_stream(self.compute)
        return target

    def fill(self, frames: Tensor, buffer: Tensor) -> None:
        """Frames [n, C, h, w] into the first n of a static buffer, on the current stream: earlier readers are through then."""
        if frames.is_cuda or self.compute is None:
            buffer[: len(frames)].copy_(frames)
            buffer[len(frames) :].zero_()
        else:
            self._copy(frames, buffer)

    def _copy(self, frames: Tensor, target: Tensor) -> None:
        # Pinned memory comes from torch's cache, which keeps it until the copy is done.
        staged = frames if frames.is_pinned() and frames.is_contiguous() else _pinned(frames)
        target[: len(frames)].copy_(staged, non_blocking=True)
        target[len(frames) :].zero_()


def _pinned(frames: Tensor) -> Tensor:
    staged = torch.empty(frames.shape, dtype=frames.dtype, pin_memory=True)
    return staged.copy_(frames)
