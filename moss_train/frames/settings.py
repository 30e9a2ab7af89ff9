"""What the config's `vision` group means for one model: bytes become numbers of frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from model.config import VisionConfig
from model.vision.fused.levels import KEPT, TORCH_LEVELS
from moss_train.config.schema import RunConfig, VisionStepConfig
from moss_train.frames.activations import activation_bytes
from moss_train.frames.cost import again_share, copy_share

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
    """How many of them stay on the device."""
    host_mode: str = "all"
    """The level of those whose state goes to host memory."""
    host: int = 0
    """How many of them; the others are encoded again."""
    frame_bytes: int = field(default=0, compare=False)
    """Of a frame whose state stays on the device."""


@dataclass(frozen=True)
class Choice:
    """One level that `vision.keep_mode=auto` may take, or `vision.keep_host_mode=auto`."""

    mode: str
    fits: int
    """Frames whose state fits; -1: all."""
    again: float
    """What the backward pass of such a frame runs again, in forward passes."""
    copy: float = 0.0
    """Time of a frame's copy to the host, in forward passes."""
    frame_bytes: int = 0

    def count(self, frames: int) -> int:
        """Of so many frames, those that fit."""
        return frames if self.fits < 0 else min(self.fits, frames)


@dataclass(frozen=True)
class _Tower:
    """What frames cost in a tower; fields as the arguments of `EncodeSettings.of`."""

    vision: VisionConfig
    element_size: int
    pad_tokens: bool
    fused: bool
    fp8: bool

    def choice(self, mode: str, gib: float) -> Choice:
        """A level with the number of frames whose state fits into so much memory; all below 0."""
        bytes_ = activation_bytes(self.vision, self.element_size, mode, self.pad_tokens, self.fused)
        fits = -1 if gib < 0 else int(gib * GIB / bytes_)
        again = again_share(self.vision, mode, self.fused, self.pad_tokens)
        return Choice(mode, fits, again, copy_share(self.vision, bytes_, self.pad_tokens, self.fp8), bytes_)


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
    frame_bytes: int = 0
    """Kept of a frame at `keep_mode`. Not looked at with choices."""
    host_bytes: int = 0
    """Host memory for the state of further frames."""
    host_mode: str = "input"
    """What is kept there of a frame; auto: one of `host_choices`."""
    host_choices: tuple[Choice, ...] = ()
    """Levels of frames in host memory."""

    @classmethod
    def of(
        cls, config: VisionStepConfig, vision: VisionConfig, element_size: int, pad_tokens: bool, same_chunks: bool = False,
        fused: bool | None = None, fp8: bool = False,
    ) -> EncodeSettings:  # fmt: skip
        """Settings of a run.

        Args:
            vision: the tower's dimensions.
            element_size: bytes of a parameter.
            pad_tokens: whether the tower's padding rows take part.
            same_chunks: the first pass takes the chunks of the second, for a tower whose fp8 scales are those of a chunk, and
                with them a frame's features.
            fused: whether the tower's layers are; None goes by the config as on a GPU.
            fp8: whether its products are in fp8.
        """
        if fused is None:
            fused = config.layers == "fused" or (config.layers == "auto" and element_size == 2)
        tower, gib = _Tower(vision, element_size, pad_tokens, fused, fp8), config.keep_activations_gib
        choices: tuple[Choice, ...] = ()
        if config.keep_mode == "auto":
            choices = tuple(tower.choice(mode, gib) for mode in reversed(KEPT if fused else TORCH_LEVELS))
        first = choices[0] if choices else tower.choice(config.keep_mode, gib)
        # What was kept is gone when frames are encoded again, so a chunk may take the memory that was meant for it.
        room = min(AGAIN_MOST, tower.choice("all", gib).fits) if gib > 0 else 0
        again_chunk = config.again_chunk_frames or max(AGAIN_CHUNK[fused], room)
        host_levels = _host_levels(config.keep_host_mode, fused)
        return cls(
            keep_frames=first.fits,
            keep_mode=config.keep_mode,
            chunk=again_chunk if same_chunks else config.encode_chunk_frames,
            again_chunk=again_chunk,
            window_bytes=config.window_gib * GIB,
            fused=fused,
            choices=choices,
            frame_bytes=first.frame_bytes,
            host_bytes=int(config.keep_host_gib * GIB),
            host_mode=config.keep_host_mode,
            host_choices=tuple(tower.choice(mode, config.keep_host_gib) for mode in host_levels),
        )

    def kept(self, frames: int) -> Kept:
        """What a rank keeps that encodes `frames` in a step.

        Auto takes the levels with which least is computed again: frames that do not fit are encoded again as a whole. Copies to
        the host cost nothing as long as they take no longer than encoding all frames does.
        """
        choices = self.choices or (Choice(self.keep_mode, self.keep_frames, 0.0, frame_bytes=self.frame_bytes),)
        best, least = Kept("all", 0), float("inf")
        for device in choices:
            kept = device.count(frames)
            for host, count in self._on_host(frames - kept, frames):
                waiting = max(0.0, count * host.copy - frames) if self.host_mode == "auto" else 0.0
                cost = kept * device.again + count * host.again + waiting + frames - kept - count
                if cost < least:
                    best, least = Kept(device.mode, kept, host.mode, count, device.frame_bytes), cost
        return best

    def _on_host(self, left: int, frames: int) -> list[tuple[Choice, int]]:
        """Levels in host memory, and how many of the `left` frames at each; none first."""
        found = [(Choice("all", 0, 0.0), 0)]
        for choice in self.host_choices:
            count = choice.count(left)
            if self.host_mode == "auto" and choice.copy > 1 - choice.again:  # a frame that the copies wait for gains nothing
                count = min(count, int(frames / choice.copy))
            if count:
                found.append((choice, count))
        return found


def _host_levels(mode: str, fused: bool) -> Sequence[str]:
    """Levels that a frame in host memory may have; layers that are not fused keep attention's results out of autograd's sight."""
    levels = tuple(reversed(KEPT)) if fused else ("all", "input")
    if mode == "auto":
        return levels
    return (mode if mode in levels else "input",)


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
