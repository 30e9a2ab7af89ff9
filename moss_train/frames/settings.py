"""What the config's `vision` group means for one model: bytes become numbers of frames."""

from __future__ import annotations

from dataclasses import dataclass

from model.config import VisionConfig
from moss_train.config.schema import VisionStepConfig
from moss_train.frames.activations import activation_bytes

GIB = 2**30


@dataclass(frozen=True)
class EncodeSettings:
    """Values of the encode and return phases on every rank."""

    keep_frames: int = -1
    """Frames that a rank keeps autograd state of in a step; -1 keeps all."""
    keep_mode: str = "all"
    """all | attention: what is kept of such a frame."""
    chunk: int = 64
    """Frames in one call of the tower in the first pass."""
    again_chunk: int = 8
    """Frames in one call of the tower where they are encoded again for the backward pass, with their whole state."""
    window_bytes: float = float("inf")
    """Memory of the frames in flight; see `moss_train.frames.windows`."""

    @classmethod
    def of(
        cls, config: VisionStepConfig, vision: VisionConfig, element_size: int, pad_tokens: bool, same_chunks: bool = False
    ) -> EncodeSettings:
        """Settings of a run.

        Args:
            vision: the tower's dimensions.
            element_size: bytes of a parameter.
            pad_tokens: whether the tower's padding rows take part.
            same_chunks: the first pass takes the chunks of the second, for a tower in fp8: its scales are those of a chunk, and
                with them a frame's features.
        """
        keep = -1
        if config.keep_activations_gib >= 0:
            keep = int(config.keep_activations_gib * GIB / activation_bytes(vision, element_size, config.keep_mode, pad_tokens))
        return cls(
            keep_frames=keep,
            keep_mode=config.keep_mode,
            chunk=config.again_chunk_frames if same_chunks else config.encode_chunk_frames,
            again_chunk=config.again_chunk_frames,
            window_bytes=config.window_gib * GIB,
        )
