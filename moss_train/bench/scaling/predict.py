"""The packs of a case, and what `moss plan` says of a step of them: time, memory."""

from __future__ import annotations

from collections.abc import Sequence

from data_pipeline.packing.batch import PackedMicroBatch
from model.config import VideoMllamaConfig
from moss_train.bench.packs import stage_pack
from moss_train.bench.scaling.cases import Case
from moss_train.feed.work import batch_work
from moss_train.planning.flops import Gpu, Work
from moss_train.planning.hardware import Cluster
from moss_train.planning.memory import PackLoad, plan_memory
from moss_train.planning.rates import Row
from moss_train.planning.step_time import step_time


def packs_of(case: Case, model: VideoMllamaConfig, replica: int, seed: int, *, pixels: bool = True) -> list[PackedMicroBatch]:
    """A replica's micro-batches. Those of equally many frames are alike, so that every GPU, and every layout, has equal work."""
    return [stage_pack(model, case.stage, case.rows, frames, seed, pixels) for frames in case.frames[replica]]


def all_packs(case: Case, seed: int) -> list[list[PackedMicroBatch]]:
    """Of every replica, without pixels."""
    model = VideoMllamaConfig.from_dict(case.config.model)
    return [packs_of(case, model, replica, seed, pixels=False) for replica in range(len(case.frames))]


def work_of(packs: Sequence[Sequence[PackedMicroBatch]]) -> Work:
    """Of a whole step."""
    return sum((batch_work(pack) for replica in packs for pack in replica), Work(rows=0))


def planned_bytes(case: Case, seed: int) -> float:
    """Of a GPU, what lies beside the allocator among them."""
    total = predicted(case, all_packs(case, seed), None, None)["total"]
    assert total is not None
    return total


def predicted(case: Case, packs: list[list[PackedMicroBatch]], gpu: Gpu | None, row: Row | None) -> dict[str, float | None]:
    """What `moss plan` says: seconds of a step (None on an unknown device) and most bytes allocated on a rank.

    A plan spreads frames evenly over the ranks and takes packs that are all like the largest.
    """
    config = case.config
    step = None
    if gpu is not None and row is not None:
        step = step_time(config, case.ranks, work_of(packs), Cluster(gpu, row=row), len(case.frames[0])).total
    stages = [stage for replica in packs for stage in plan_memory(config, case.ranks, _load(replica)).stages]
    return {
        "step": step, "peak": float(max(stage.peak for stage in stages)), "total": float(max(stage.total for stage in stages)),
    }  # fmt: skip


def _load(packs: Sequence[PackedMicroBatch]) -> PackLoad:
    return PackLoad.of_samples(
        [list(zip(pack.cu_seqlens.diff().tolist(), pack.cu_frames.diff().tolist(), strict=True)) for pack in packs]
    )
