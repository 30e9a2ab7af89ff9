"""The frames that this rank encodes in a window: forward now, backward when the decoder's gradients have come back."""

from __future__ import annotations

import itertools
from typing import Protocol

import torch

from moss_train.frames.kept import keeping
from moss_train.frames.settings import EncodeSettings
from moss_train.phases import mark


class Encoder(Protocol):
    """What a vision encoder offers: `model.vision.encoder.VisionEncoder`."""

    def pooled(self, frames: torch.Tensor, aspect_ratio_ids: torch.Tensor) -> torch.Tensor: ...

    def project_pooled(self, pooled: torch.Tensor) -> torch.Tensor: ...


class OwnedFrames:
    """Features of n frames, and the means to send a gradient through them.

    Where only the projector trains, the tower stays out of autograd and every frame keeps its (small) projector
    state. Otherwise the first `keep` frames keep the autograd state that `settings.keep_mode` says; the others are
    encoded again for the backward pass, chunk by chunk, so that memory does not grow with the number of frames.

    Args:
        encoder: the vision encoder.
        frames: uint8 [n, 3, S, S].
        aspect_ratio_ids: int64 [n].
        trains: "nothing" | "projector" | "tower" (anything below the projector).
        keep: frames that may keep autograd state; -1 keeps all.
        settings: frames in one call of the encoder, and what is kept of a frame.
    """

    def __init__(
        self, encoder: Encoder, frames: torch.Tensor, aspect_ratio_ids: torch.Tensor, trains: str, keep: int,
        settings: EncodeSettings,
    ) -> None:  # fmt: skip
        self._encoder = encoder
        self._trains = trains
        self._settings = settings
        count = int(frames.shape[0])
        self.kept = count if keep < 0 or trains == "projector" else min(keep, count)
        """Frames that keep their state until `backward`."""
        if trains == "nothing":
            self.kept = 0
        self._chunks: list[tuple[int, int, torch.Tensor]] = []
        outputs = []
        keeps_less = trains == "tower" and self.kept > 0
        with keeping(encoder, settings.kept(count).mode if keeps_less else "all"):
            for begin, end in _ranges(0, self.kept, settings.chunk):
                outputs.append(self._encode(frames[begin:end], aspect_ratio_ids[begin:end]))
                self._chunks.append((begin, end, outputs[-1]))
        with torch.no_grad():
            for begin, end in _ranges(self.kept, count, settings.chunk):
                outputs.append(self._encode(frames[begin:end], aspect_ratio_ids[begin:end]))
        # Pixels stay only where they are needed again.
        self._again = (frames, aspect_ratio_ids) if self.kept < count and trains != "nothing" else None
        self.features: torch.Tensor | None = torch.cat([o.detach() for o in outputs]) if outputs else None
        """[n, P, H] without autograd state; None when this rank encodes nothing. May be set to None after use."""
        self.encoded_again = 0
        """Frames that went through a second forward pass."""

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
            begin, end, output = self._chunks.pop(0)
            torch.autograd.backward(output, gradient[begin:end].to(output.dtype))
        if self._again is None:
            return
        frames, ids = self._again
        for begin, end in _ranges(self.kept, int(frames.shape[0]), self._settings.again_chunk):
            with keeping(self._encoder, "all"):
                output = self._encode(frames[begin:end], ids[begin:end])
            self.encoded_again += end - begin
            torch.autograd.backward(output, gradient[begin:end].to(output.dtype))


def _ranges(begin: int, end: int, most: int) -> list[tuple[int, int]]:
    """As few ranges as `most` allows, as even as can be."""
    count = -(-(end - begin) // most)
    edges = [begin + (end - begin) * i // max(count, 1) for i in range(count + 1)]
    return list(itertools.pairwise(edges))
