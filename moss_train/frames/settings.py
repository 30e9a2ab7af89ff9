"""What the config's `vision` group means for one model: bytes become numbers of frames."""

from __future__ import annotations

from dataclasses import dataclass

from model.config import VisionConfig
from model.vision.fused.levels import KEPT, TORCH_LEVELS
from moss_train.config.schema import RunConfig, VisionStepConfig
from moss_train.frames.activations import activation_bytes
from moss_train.frames.cost import again_share

GIB = 2**30

AGAIN_CHUNK = {True: 12, False: 8}
"""Frames encoded again at once at least where the config leaves it open, by whether layers are fused: 20 GB at 11B in bf16
either way."""
AGAIN_MOST = 32
"""And at most: more gain nothing, a GPU is full and the host ahead."""


@dataclass(frozen=True)
class Kept:
    """What of a rank's frames in a step is kept for the backward pass."""

    mode: str
    """A level of `model.vision.fused.levels.KEPT`."""
    frames: int
    """How many of them; the others are encoded again."""


@dataclass(frozen=True)
class Choice:
    """One level that `vision.keep_mode=auto` may take."""

    mode: str
    fits: int
    """Frames whose state fits; -1: all."""
    again: float
    """What the backward pass of such a frame runs again, in forward passes."""


@dataclass(frozen=True)
class EncodeSettings:
    """Values of the encode and return phases on every rank."""

    keep_frames: int = -1
    """Frames that a rank keeps autograd state of in a step; -1 keeps all. Not looked at with choices."""
    keep_mode: str = "all"
    """What is kept of such a frame, a level of `model.vision.fused.levels.KEPT`; auto: one of `choices`."""
    chunk: int = 64
    """Frames in one call of the tower in the first pass."""
    again_chunk: int = 8
    """Frames in one call of the tower where they are encoded again for the backward pass, with their whole state."""
    window_bytes: float = float("inf")
    """Memory of the frames in flight; see `moss_train.frames.windows`."""
    fused: bool = False
    """Whether the tower's layers are fused."""
    choices: tuple[Choice, ...] = ()
    """Of auto, most kept first."""

    @classmethod
    def of(
        cls, config: VisionStepConfig, vision: VisionConfig, element_size: int, pad_tokens: bool, same_chunks: bool = False,
        fused: bool | None = None,
    ) -> EncodeSettings:  # fmt: skip
        """Settings of a run.

        Args:
            vision: the tower's dimensions.
            element_size: bytes of a parameter.
            pad_tokens: whether the tower's padding rows take part.
            same_chunks: the first pass takes the chunks of the second, for a tower whose fp8 scales are those of a chunk, and
                with them a frame's features.
            fused: whether the tower's layers are; None goes by the config as on a GPU.
        """
        if fused is None:
            fused = config.layers == "fused" or (config.layers == "auto" and element_size == 2)

        def fits(mode: str) -> int:
            if config.keep_activations_gib < 0:
                return -1
            return int(config.keep_activations_gib * GIB / activation_bytes(vision, element_size, mode, pad_tokens, fused))

        levels = list(KEPT) if fused else list(TORCH_LEVELS)
        auto = config.keep_mode == "auto"
        choices = [Choice(mode, fits(mode), again_share(vision, mode, fused, pad_tokens)) for mode in reversed(levels)]
        # What was kept is gone when frames are encoded again, so a chunk may take the memory that was meant for it.
        room = min(AGAIN_MOST, fits("all")) if config.keep_activations_gib > 0 else 0
        again_chunk = config.again_chunk_frames or max(AGAIN_CHUNK[fused], room)
        return cls(
            keep_frames=choices[0].fits if auto else fits(config.keep_mode),
            keep_mode=config.keep_mode,
            chunk=again_chunk if same_chunks else config.encode_chunk_frames,
            again_chunk=again_chunk,
            window_bytes=config.window_gib * GIB,
            fused=fused,
            choices=tuple(choices) if auto else (),
        )

    def kept(self, frames: int) -> Kept:
        """What a rank keeps that encodes `frames` in a step.

        Auto takes the level with which least is computed again: frames that do not fit are encoded again as a whole.
        """
        choices = self.choices or (Choice(self.keep_mode, self.keep_frames, 0.0),)

        def count(choice: Choice) -> int:
            return frames if choice.fits < 0 else min(choice.fits, frames)

        best = min(choices, key=lambda choice: count(choice) * choice.again + frames - count(choice))
        return Kept(best.mode, count(best))


def expects_fused(config: RunConfig) -> bool:
    """Whether the tower's layers of a run will be fused on a GPU, going by its config: adapters keep them apart."""
    adapted = config.lora.rank > 0 and any(target.startswith("vision_") for target in config.lora.targets)
    if config.vision.layers == "torch" or adapted:
        return False
    return config.vision.layers == "fused" or config.precision.dtype == "bf16"


def fp8_of_tower(config: RunConfig) -> str:
    """How the tower's products are computed in fp8, see `model.vision.fp8.use_fp8`."""
    if not config.precision.fp8_vision:
        return "none"
    if not expects_fused(config):
        return "linears"
    return "rows" if config.precision.fp8_vision_weight_gradients else "rows_bf16"
