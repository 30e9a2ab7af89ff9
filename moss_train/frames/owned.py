"""The frames that this rank encodes in a window: forward now, backward when the decoder's gradients have come back."""

from __future__ import annotations

import itertools
from typing import Protocol

import torch

from moss_train.frames.host_memory import ON_THE_WAY, HostMemory
from moss_train.frames.kept import keeping
from moss_train.frames.on_host import HostChunk
from moss_train.frames.settings import EncodeSettings
from moss_train.phases import mark


class Encoder(Protocol):
    """What a vision encoder offers: `model.vision.encoder.VisionEncoder`."""

    def pooled(self, frames: torch.Tensor, aspect_ratio_ids: torch.Tensor) -> torch.Tensor: ...

    def project_pooled(self, pooled: torch.Tensor) -> torch.Tensor: ...


HOST_CHUNK = 32
"""Frames in one call of the tower at most where states go to host memory: what leaves the device at once stays small."""


class OwnedFrames:
    """Features of n frames, and the means to send a gradient through them.

    Where only the projector trains, the tower stays out of autograd and every frame keeps its (small) projector
    state. Otherwise the first `keep` + `host` frames keep the autograd state that `settings` says, on the device or in host
    memory, chunks of either kind by turns, so that the copies spread over the time; the others are encoded again for the backward
    pass, chunk by chunk, so that memory does not grow with the number of frames.

    Args:
        encoder: the vision encoder.
        frames: uint8 [n, 3, S, S].
        aspect_ratio_ids: int64 [n].
        trains: "nothing" | "projector" | "tower" (anything below the projector).
        keep: frames that may keep autograd state on the device; -1 keeps all.
        settings: frames in one call of the encoder, and what is kept of a frame.
        host: frames whose state goes to host memory, if the tower trains.
        memory: that memory.
    """

    def __init__(
        self, encoder: Encoder, frames: torch.Tensor, aspect_ratio_ids: torch.Tensor, trains: str, keep: int,
        settings: EncodeSettings, host: int = 0, memory: HostMemory | None = None,
    ) -> None:  # fmt: skip
        self._encoder = encoder
        self._trains = trains
        self._settings = settings
        count = int(frames.shape[0])
        self.on_host = min(host, count) if trains == "tower" and memory is not None else 0
        """Frames whose state lies in host memory until `backward`."""
        left = count - self.on_host
        self.kept = left if keep < 0 or trains == "projector" else min(keep, left)
        """Frames that keep their state on the device until `backward`."""
        if trains == "nothing":
            self.kept = 0
        self._moved: list[tuple[int, int, torch.Tensor, HostChunk]] = []
        self._chunks: list[tuple[int, int, torch.Tensor]] = []
        self._begin_again = self.on_host + self.kept
        outputs: list[torch.Tensor] = []
        room = max(keep, 0)  # frames that are still to be kept on the device; the copies on their way may have their memory
        for begin, end, moves in _turns(self.on_host, self.kept, settings.chunk):
            room -= 0 if moves else end - begin
            if memory is not None:
                memory.settle(ON_THE_WAY + max(room, 0) * settings.frame_bytes)
            if moves and memory is not None:
                outputs.append(self._encode_to_host(begin, end, frames, aspect_ratio_ids, memory))
                continue
            with keeping(encoder, settings.keep_mode if trains == "tower" else "all"):
                outputs.append(self._encode(frames[begin:end], aspect_ratio_ids[begin:end]))
            self._chunks.append((begin, end, outputs[-1]))
        with torch.no_grad():
            for begin, end in _ranges(self._begin_again, count, settings.chunk):
                outputs.append(self._encode(frames[begin:end], aspect_ratio_ids[begin:end]))
        # Pixels stay only where they are needed again.
        self._again = (frames, aspect_ratio_ids) if self._begin_again < count and trains != "nothing" else None
        self.features: torch.Tensor | None = torch.cat([o.detach() for o in outputs]) if outputs else None
        """[n, P, H] without autograd state; None when this rank encodes nothing. May be set to None after use."""
        self.encoded_again = 0
        """Frames that went through a second forward pass."""

    def _encode_to_host(
        self, begin: int, end: int, frames: torch.Tensor, ids: torch.Tensor, memory: HostMemory
    ) -> torch.Tensor:  # fmt: skip
        """Features [F, P, H] of a chunk whose state goes to host memory."""
        chunk = HostChunk(memory, self._encoder)
        with keeping(self._encoder, self._settings.host_mode), chunk.saving():
            output = self._encode(frames[begin:end], ids[begin:end])
        if self._moved:
            self._moved[-1][3].following = chunk
        self._moved.append((begin, end, output, chunk))
        return output

    def _encode(self, frames: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        with mark("encode chunk"):
            return self._apply(frames, ids)

    def _apply(self, frames: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        if self._trains == "tower":
            return self._encoder.project_pooled(self._encoder.pooled(frames, ids))
        with torch.no_grad():
            pooled = self._encoder.pooled(frames, ids)
        return self._encoder.project_pooled(pooled)

    def backward(self, gradient: torch.Tensor) -> None:
        """Accumulate parameter gradients.

        Args:
            gradient: [n, P, H] derivative of the summed loss by `features`.
        """
        while self._chunks:
            if len(self._chunks) == 1 and self._moved:
                self._moved[0][3].prefetch()
            begin, end, output = self._chunks.pop(0)
            torch.autograd.backward(output, gradient[begin:end].to(output.dtype))
        while self._moved:
            begin, end, output, chunk = self._moved.pop(0)
            torch.autograd.backward(output, gradient[begin:end].to(output.dtype))
            chunk.close()
        if self._again is None:
            return
        frames, ids = self._again
        for begin, end in _ranges(self._begin_again, int(frames.shape[0]), self._settings.again_chunk):
            with keeping(self._encoder, "all"):
                output = self._encode(frames[begin:end], ids[begin:end])
            self.encoded_again += end - begin
            torch.autograd.backward(output, gradient[begin:end].to(output.dtype))


def _ranges(begin: int, end: int, most: int) -> list[tuple[int, int]]:
    """As few ranges as `most` allows, as even as can be."""
    count = -(-(end - begin) // most)
    edges = [begin + (end - begin) * i // max(count, 1) for i in range(count + 1)]
    return list(itertools.pairwise(edges))


def _turns(moved: int, kept: int, most: int) -> list[tuple[int, int, bool]]:
    """Ranges of frames whose state goes to the host (True) and of frames that keep it on the device, by turns."""
    if moved:
        most = min(most, HOST_CHUNK)
    places = []
    for moves, count in ((True, moved), (False, kept)):
        ranges = _ranges(0, count, most)
        places += [((i + 0.5) / len(ranges), moves, end - begin) for i, (begin, end) in enumerate(ranges)]
    found, begin = [], 0
    for _, moves, size in sorted(places, key=lambda place: place[0]):
        found.append((begin, begin + size, moves))
        begin += size
    return found
