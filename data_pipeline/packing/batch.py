"""The packed micro-batch: what the loader hands to a training step."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

IGNORE_INDEX = -100


@dataclass
class PackedMicroBatch:
    """Samples laid behind each other in one sequence of T rows with F frames.

    Row t may look at the frames `frame_begin[t] .. frame_end[t] - 1` of this micro-batch; an empty range means
    that the row sees no frame. Rows of different samples never see each other.
    """

    input_ids: torch.Tensor
    """int64 [T]; every frame is one image token."""
    targets: torch.Tensor
    """int64 [T]; already shifted: the token that row t must predict, or -100. A sample's last row is -100."""
    position_ids: torch.Tensor
    """int64 [T]; restarts at 0 with each sample."""
    cu_seqlens: torch.Tensor
    """int32 [N + 1]; sample n owns the rows cu_seqlens[n] .. cu_seqlens[n + 1] - 1. The last entry is T."""
    cu_frames: torch.Tensor
    """int32 [N + 1]; sample n owns the frames cu_frames[n] .. cu_frames[n + 1] - 1. The last entry is F."""
    frame_begin: torch.Tensor
    """int32 [T]; first visible frame of a row."""
    frame_end: torch.Tensor
    """int32 [T]; one past the last visible frame of a row."""
    frame_positions: torch.Tensor
    """int64 [F]; position (within its sample) of each frame's image token."""
    frames: torch.Tensor
    """uint8 [F, 3, image_size, image_size]; fitted, padded at the bottom and right with 0, not normalised."""
    aspect_ratio_ids: torch.Tensor
    """int64 [F]; 1 for a real frame, 0 for a padding frame."""
    token_class: torch.Tensor
    """int8 [T]; class of the target, for per-class losses: see `TOKEN_CLASSES`."""
    sample_keys: list[str] = field(default_factory=list)
    """One per sample, `dataset/key`; a padding sample has the key ''."""
    dataset_index: list[int] = field(default_factory=list)
    """One per sample: index into the data config's list of datasets; -1 for padding."""
    dense_labels: torch.Tensor | None = None
    """int64 [F, grid, grid] class of every patch, only for the dense-label warm start; -100 is ignored."""

    @property
    def num_frames(self) -> int:
        return int(self.frames.shape[0])

    @property
    def num_rows(self) -> int:
        return int(self.input_ids.shape[0])

    @property
    def num_targets(self) -> int:
        """Rows that count in the loss."""
        return int((self.targets != IGNORE_INDEX).sum())


TOKEN_CLASSES = ("ignored", "text", "silence", "first_answer", "after_interruption")
"""Index = value in `PackedMicroBatch.token_class`.

`first_answer` is the first spoken token after silence or a turn's start. `after_interruption` is what a real-time answer says
from the start of a turn to its first silence, where the turn's prompt came while the model was speaking; its first token
counts here and not as `first_answer`.
"""
