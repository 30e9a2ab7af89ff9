"""How evenly the frames of a step are spread over many ranks: the step's own plan, run on the workload without a model.

Compared are four ways to decide who encodes. All get the same packs, one pack a rank in a step (the first gets samples):
`sample a rank` is the reference's batch of one; `pack a rank` encodes where the text is; `whole samples` deals samples
largest first to the least busy rank, the best that can be done without cutting a video; `frames` is the decoupled step.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from model.config import VideoMllamaConfig
from model.errors import InputError
from moss_train.config.schema import VisionStepConfig
from moss_train.frames.cost import rank_cost
from moss_train.frames.plan import FramePlan, plan_frames
from moss_train.frames.settings import EncodeSettings
from moss_train.frames.windows import WindowBound
from moss_train.parallel.layout import RankPlace
from moss_train.planning.workload import STAGES, WorkloadSample, draw_packs, draw_samples

BF16 = 2  # bytes


@dataclass(frozen=True)
class Balance:
    """One stage on one number of ranks, over some steps."""

    stage: str
    ranks: int
    frames: float
    """Frames a rank encodes in a step, mean."""
    sample_a_rank: float
    """Largest over mean predicted encode cost of the ranks, mean over the steps."""
    pack_a_rank: float
    whole_samples: float
    by_frame: float
    worst: float
    """`by_frame` of the worst step."""
    in_windows: float
    """As `by_frame`, when every window waits for its slowest rank: the sum of the windows' largest costs over the mean."""
    windows: float
    """Windows a step, mean."""
    moved: float
    """Share of frames encoded outside the replica that reads them."""


def check_simulation(stage: str, ranks: int, steps: int, replica_ranks: int) -> None:
    """Refuses what `simulate` cannot run.

    Raises:
        InputError: an unknown stage, or ranks that are no multiple of a replica's.
    """
    if stage not in STAGES:
        raise InputError(f"--stage is {stage!r}, which is not in the workload; use one of {', '.join(STAGES)}")
    for name, value in (("--ranks", ranks), ("--steps", steps), ("--replica-ranks", replica_ranks)):
        if value < 1:
            raise InputError(f"{name} is {value}; it must be at least 1")
    if ranks % replica_ranks:
        raise InputError(f"--ranks is {ranks}, no multiple of --replica-ranks {replica_ranks}; change one of them")


def simulate(stage: str, ranks: int, *, steps: int = 4, replica_ranks: int = 1, seed: int = 0) -> Balance:
    """Spread a stage's frames over the ranks for some steps of the 11B model in bf16.

    Args:
        stage: a key of the workload's stages.
        ranks: ranks of the world.
        steps: steps of one pack a rank each.
        replica_ranks: tensor x pipeline ranks of a replica, which reads as many packs in a step.
        seed: of the workload.

    Raises:
        InputError: see `check_simulation`.
    """
    check_simulation(stage, ranks, steps, replica_ranks)
    config = VideoMllamaConfig()
    settings = EncodeSettings.of(VisionStepConfig(), config.vision, BF16, config.switches.vit_keep_pad_tokens)
    cost = partial(rank_cost, config, STAGES[stage].trains, settings)
    packs, samples = draw_packs(stage, seed), draw_samples(stage, seed)
    rows = []
    for _ in range(steps):
        taken = list(itertools.islice(packs, ranks))
        alone = list(itertools.islice(samples, ranks))
        plan = _plan(taken, ranks, replica_ranks, config, settings)
        rows.append((_ratios(taken, alone, plan, ranks, cost), plan))
    ratios = [ratio for ratio, _ in rows]
    plans = [plan for _, plan in rows]
    total = max(1, sum(plan.frames for plan in plans))
    return Balance(
        stage=stage,
        ranks=ranks,
        frames=total / steps / ranks,
        sample_a_rank=_mean([ratio[0] for ratio in ratios]),
        pack_a_rank=_mean([ratio[1] for ratio in ratios]),
        whole_samples=_mean([ratio[2] for ratio in ratios]),
        by_frame=_mean([ratio[3] for ratio in ratios]),
        worst=max(ratio[3] for ratio in ratios),
        in_windows=_mean([ratio[4] for ratio in ratios]),
        windows=_mean([len(plan.windows) for plan in plans]),
        moved=sum(_moved(plan, replica_ranks) for plan in plans) / total,
    )


def _plan(
    packs: Sequence[Sequence[WorkloadSample]], ranks: int, replica_ranks: int, config: VideoMllamaConfig, settings: EncodeSettings
) -> FramePlan:
    """The plan that every rank of such a run would make."""
    counts = [sum(sample.frames for sample in pack) for pack in packs]
    by_replica = [counts[i : i + replica_ranks] for i in range(0, ranks, replica_ranks)]
    places = [RankPlace(data=r // replica_ranks, tensor=r % replica_ranks, pipeline=0, context=0) for r in range(ranks)]
    vision = config.vision
    bound = WindowBound(
        limit=settings.window_bytes,
        pixels=vision.num_channels * vision.image_size**2,
        features=vision.tokens_per_frame * config.text.hidden_size * BF16,
        replica_ranks=replica_ranks,
        context=1,
        stages=1,
    )
    return plan_frames(by_replica, places, [True] * ranks, bound)


def _moved(plan: FramePlan, replica_ranks: int) -> int:
    """Frames encoded outside the replica that reads them."""
    spans = (span for window in plan.windows for span in window.spans)
    return sum(span.size for span in spans if span.rank // replica_ranks != span.replica)


def _ratios(
    packs: Sequence[Sequence[WorkloadSample]],
    samples: Sequence[WorkloadSample],
    plan: FramePlan,
    ranks: int,
    cost: Callable[[int], float],
) -> tuple[float, float, float, float, float]:
    """Largest over mean cost of each way, and of the plan with a wait after each window."""

    def ratio(loads: Sequence[int]) -> float:
        costs = [cost(load) for load in loads]
        return max(costs) * ranks / sum(costs) if sum(costs) else 1.0

    planned = [0] * ranks
    waited, done = 0.0, [0.0] * ranks
    for window in plan.windows:
        for span in window.spans:
            planned[span.rank] += span.size
        now = [cost(load) for load in planned]
        waited += max(after - before for after, before in zip(now, done, strict=True))
        done = now
    return (
        ratio([sample.frames for sample in samples]),
        ratio([sum(sample.frames for sample in pack) for pack in packs]),
        ratio(_largest_first([sample.frames for pack in packs for sample in pack], ranks)),
        ratio(planned),
        waited * ranks / sum(done) if sum(done) else 1.0,
    )


def _largest_first(frames: Sequence[int], ranks: int) -> list[int]:
    """Loads when whole samples go, largest first, to the rank that has least."""
    heap = [(0, rank) for rank in range(ranks)]
    for count in sorted(frames, reverse=True):
        load, rank = heapq.heappop(heap)
        heapq.heappush(heap, (load + count, rank))
    return [load for load, _ in heap]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
