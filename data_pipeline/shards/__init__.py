"""Shards: importing annotations, checking samples, and writing WebDataset tars that Megatron-Energon reads.

A dataset folder holds `shard-000000.tar` and so on, Energon's index in `.nv-meta/` and `summary.json`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data_pipeline.shards.schema import sample_from_dict, sample_to_dict
    from data_pipeline.shards.writer import write_samples

__all__ = ["sample_from_dict", "sample_to_dict", "write_samples"]


def __getattr__(name: str) -> Any:
    if name == "write_samples":
        from data_pipeline.shards.writer import write_samples

        return write_samples
    if name in ("sample_from_dict", "sample_to_dict"):
        from data_pipeline.shards import schema

        return getattr(schema, name)
    raise AttributeError(name)
