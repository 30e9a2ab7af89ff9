"""What a micro-batch asks of the model: the counts from which its floating-point operations follow."""

from __future__ import annotations

from data_pipeline.packing.batch import PackedMicroBatch
from moss_train.planning.flops import Work


def batch_work(batch: PackedMicroBatch) -> Work:
    """Rows, frames, and who looks at whom; padding rows count as rows and look at themselves."""
    lengths = batch.cu_seqlens.diff().long()  # [N]
    return Work(
        rows=batch.num_rows,
        frames=batch.num_frames,
        self_pairs=int((lengths * (lengths + 1) // 2).sum()),
        cross_pairs=int((batch.frame_end - batch.frame_begin).clamp(min=0).sum(dtype=batch.input_ids.dtype)),
        cross_rows=batch.num_rows if batch.num_frames else 0,
        head_rows=batch.num_targets,
    )
