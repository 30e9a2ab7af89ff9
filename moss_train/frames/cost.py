"""Predicted cost of encoding: what a frame costs a rank, forward, backward, and again.

Operations are counted from the tower's dimensions, a multiplication and an addition as two: with S token rows of width D
and an MLP of width I a layer takes 2 S (4 D^2 + 2 D I) for its products and 4 S^2 D for attention. At 11B that is 3.07
TFLOP a frame. The ratio of backward to forward is measured, not the 2 that operations alone would give: 9.7 ms against
4.45 ms for one layer of 32 frames in bf16 on an H200.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from model.config import VideoMllamaConfig, VisionConfig

BACKWARD = 9.7 / 4.45
"""Backward pass of the tower in units of its forward pass, measured."""


def layer_flops(config: VisionConfig, pad_tokens: bool = True) -> dict[str, float]:
    """Forward operations of one layer on one frame, by part: projections (q, k, v, output), attention, fc1, fc2."""
    rows = config.num_padded_positions if pad_tokens else config.num_positions
    width, inner = config.hidden_size, config.intermediate_size
    return {
        "projections": 2.0 * rows * 4 * width**2,
        "attention": 4.0 * rows**2 * width,
        "fc1": 2.0 * rows * width * inner,
        "fc2": 2.0 * rows * width * inner,
    }


def frame_flops(config: VideoMllamaConfig) -> float:
    """Forward operations of one frame: patches, tower, projector."""
    vision = config.vision
    layers = vision.num_hidden_layers + vision.num_global_layers
    patches = 2.0 * vision.num_patches * vision.num_channels * vision.patch_size**2 * vision.hidden_size
    projector = 2.0 * vision.tokens_per_frame * vision.output_dim * config.text.hidden_size
    return layers * sum(layer_flops(vision, config.switches.vit_keep_pad_tokens).values()) + patches + projector


AGAIN: dict[str, tuple[str, ...]] = {
    "input": ("queries", "attention", "output", "fc1"),
    "attention": ("queries", "output", "fc1"),
    "middle": ("queries", "fc1"),
    "most": ("fc1",),
    "all": (),
}
"""Level of `vision.keep_mode` -> products that a kept frame's backward pass runs again in every layer. fc2's never is."""


def again_flops(config: VisionConfig, mode: str, fused: bool = True, pad_tokens: bool = True) -> float:
    """Forward operations that the backward pass of one kept frame runs again.

    Args:
        mode: a key of `AGAIN`.
        fused: whether the layers are; others have no middle and most, which are their attention.
        pad_tokens: whether the tower's padding rows take part.
    """
    parts = layer_flops(config, pad_tokens)
    parts = {**parts, "queries": 0.75 * parts["projections"], "output": 0.25 * parts["projections"]}
    level = "attention" if mode in ("middle", "most") and not fused else mode
    return (config.num_hidden_layers + config.num_global_layers) * sum(parts[part] for part in AGAIN[level])


def again_share(config: VisionConfig, mode: str, fused: bool = True, pad_tokens: bool = True) -> float:
    """As `again_flops`, in forward passes of the layers."""
    layers = config.num_hidden_layers + config.num_global_layers
    return again_flops(config, mode, fused, pad_tokens) / (layers * sum(layer_flops(config, pad_tokens).values()))


COPIED_BYTE = {False: 13_000.0, True: 17_000.0}
"""Operations of the tower, by whether its products are in fp8, in the time in which a byte goes to the host: 550 and 710 TFLOP/s
on an H200, and 42 of the 55 GB/s of its PCIe, so that nobody waits for the last bytes."""


def copy_share(config: VisionConfig, frame_bytes: int, pad_tokens: bool = True, fp8: bool = False) -> float:
    """Time of the copy of a frame's state to the host, in forward passes of the layers."""
    layers = config.num_hidden_layers + config.num_global_layers
    return COPIED_BYTE[fp8] * frame_bytes / (layers * sum(layer_flops(config, pad_tokens).values()))


@dataclass(frozen=True)
class FrameCost:
    """Costs in forward passes of one frame."""

    forward: float
    backward: float
    """Of a frame whose state was kept, what `vision.keep_mode` computes again included."""
    again: float
    """What a frame without kept state costs beyond forward and a plain backward: its second forward."""
    plain_backward: float

    @classmethod
    def of(cls, config: VideoMllamaConfig, trains: str, keep_mode: str = "all", fused: bool = False) -> FrameCost:
        """Cost of a frame.

        Args:
            trains: nothing | projector | tower: how far the backward pass goes; the projector's own is left out (0.2 %).
            keep_mode: what is kept of a frame, a key of `AGAIN`.
            fused: whether the tower's layers are.
        """
        if trains != "tower":
            return cls(forward=1.0, backward=0.0, again=0.0, plain_backward=0.0)
        rerun = again_share(config.vision, keep_mode, fused, config.switches.vit_keep_pad_tokens)
        return cls(forward=1.0, backward=BACKWARD + rerun, again=1.0, plain_backward=BACKWARD)

    def rank(self, frames: int, keep: int = -1) -> float:
        """Cost of a rank that encodes `frames` and may keep the state of `keep` of them (-1: of all); grows with `frames`."""
        kept = frames if keep < 0 else min(keep, frames)
        return frames * self.forward + kept * self.backward + (frames - kept) * (self.plain_backward + self.again)


class Kept(Protocol):
    """What a rank keeps of its frames: `moss_train.frames.settings.Kept`."""

    @property
    def mode(self) -> str: ...

    @property
    def frames(self) -> int: ...

    @property
    def host_mode(self) -> str: ...

    @property
    def host(self) -> int: ...


class Settings(Protocol):
    """What says so: `moss_train.frames.settings.EncodeSettings`."""

    @property
    def fused(self) -> bool: ...

    def kept(self, frames: int) -> Kept: ...


def rank_cost(config: VideoMllamaConfig, trains: str, settings: Settings, frames: int) -> float:
    """Cost of a rank that encodes `frames` in a step with a run's settings, in forward passes of one frame."""
    kept = settings.kept(frames)
    cost = FrameCost.of(config, trains, kept.mode, settings.fused).rank(frames - kept.host, kept.frames)
    return cost + FrameCost.of(config, trains, kept.host_mode, settings.fused).rank(kept.host)
