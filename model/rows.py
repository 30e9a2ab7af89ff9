"""The rows of one micro-batch as the decoder sees them: tokens, targets, positions, bounds of samples and frames."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import torch
from torch import Tensor

from model.upload import upload

IGNORE_INDEX = -100


def frame_share(num_frames: int, size: int, rank: int) -> tuple[int, int]:
    """First frame and one past the last frame of a micro-batch that one of `size` context-parallel ranks holds.

    The shares are consecutive, in the order of the ranks, and differ by at most one frame; a share may be empty.
    """
    return num_frames * rank // size, num_frames * (rank + 1) // size


class RowSource(Protocol):
    """Anything with the fields of a packed micro-batch that concern the decoder."""

    input_ids: Tensor
    targets: Tensor
    position_ids: Tensor
    cu_seqlens: Tensor
    cu_frames: Tensor
    frame_begin: Tensor
    frame_end: Tensor
    frame_positions: Tensor


@dataclass
class PackedRows:
    """T rows of N samples laid behind each other, and the F frames that they may look at.

    Row t sees the frames frame_begin[t] .. frame_end[t] - 1; an empty range means none. A sample's rows may only
    name frames of that sample.
    """

    input_ids: Tensor
    """int64 [T]"""
    position_ids: Tensor
    """int64 [T]; restarts with each sample."""
    cu_seqlens: Tensor
    """int32 [N + 1]; sample n owns the rows cu_seqlens[n] .. cu_seqlens[n + 1] - 1."""
    cu_frames: Tensor
    """int32 [N + 1]; sample n owns the frames cu_frames[n] .. cu_frames[n + 1] - 1."""
    frame_begin: Tensor
    """int32 [T]"""
    frame_end: Tensor
    """int32 [T]"""
    frame_positions: Tensor
    """int64 [F]; position of each frame's image token within its sample."""
    targets: Tensor | None = None
    """int64 [T], already shifted, -100 where ignored; None asks the decoder for logits."""
    cache: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)
    """What is derived from the rows once and used by every chunk of the pipeline."""
    _host: PackedRows | None = field(default=None, init=False, repr=False, compare=False)
    """The same rows on the host, where `to` copied them from there; not taken over by `dataclasses.replace`."""

    @classmethod
    def of(cls, source: RowSource, device: torch.device | str | None = None, targets: bool = True) -> PackedRows:
        """Take the rows out of a packed micro-batch, on `device` if given; `targets=False` leaves the targets out."""
        names = [name for name in _NAMES if targets or name != "targets"]
        rows = cls(**{name: getattr(source, name) for name in names})
        return rows if device is None else rows.to(device)

    def to(self, device: torch.device | str) -> PackedRows:
        """The rows on a device. From the host to a GPU it is one copy that nobody waits for, and the host's are remembered."""
        device = torch.device(device)
        given: dict[str, Any] = {name: getattr(self, name) for name in _NAMES if getattr(self, name) is not None}
        places = {tensor.device.type for tensor in given.values()}
        if places == {"cpu"} and device.type == "cpu":
            return self
        arrived: dict[str, Any] = dict(zip(given, upload(list(given.values()), device), strict=True))
        moved = PackedRows(**arrived)
        if places == {"cpu"}:
            moved._host = self
        return moved

    def on_host(self) -> PackedRows:
        """The rows on the host: without waiting for the device where they came from there by `to`."""
        return self.to("cpu") if self._host is None else self._host

    @property
    def num_rows(self) -> int:
        return int(self.input_ids.shape[0])

    @property
    def num_frames(self) -> int:
        return int(self.frame_positions.shape[0])


_NAMES = [f.name for f in fields(PackedRows) if f.name not in ("cache", "_host")]
