"""The cheapest layout that fits: every reasonable split of a run over a number of GPUs, planned and compared.

Tried are tensor parallelism within a node, pipeline stages with and without virtual ones, context parallelism, full recompute,
how much of the frames' state is kept, and a distributed optimizer. Everything else stays as the configuration says. The number
of GPUs is given, so cheapest is the least predicted time of a step; within 2 % of it, what splits the model least.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from model.errors import InputError
from moss_train.config.schema import ParallelConfig, RunConfig
from moss_train.planning.expected import ExpectedPack
from moss_train.planning.hardware import Cluster
from moss_train.planning.run_plan import RunPlan, check_engine_of_plan, check_layout, gb, plan_run

TENSOR = (1, 2, 4, 8)
PIPELINE = (1, 2, 4, 8)
VIRTUAL = (1, 2)
CONTEXT = (1, 2, 4)
SMALL_FRAMES = (0.0, 2)
"""`vision.keep_activations_gib` and `vision.again_chunk_frames` that take little memory; tried beside the configuration's own."""
MOST_RANKS = 65536
ALIKE = 1.02
"""Predicted times this near are alike; then the simpler layout is better."""


@dataclass(frozen=True)
class Found:
    """The layouts of one number of GPUs."""

    ranks: int
    plans: tuple[RunPlan, ...]
    """Those that fit, the fastest first."""
    refused: dict[str, int]
    """Why others were refused -> how many."""
    nearest: RunPlan | None
    """The one that misses least, where none fits."""

    @property
    def best(self) -> RunPlan | None:
        """The cheapest that fits."""
        return self.plans[0] if self.plans else None

    @property
    def second(self) -> RunPlan | None:
        """The next best in another layout."""
        if self.best is None:
            return None
        return next((plan for plan in self.plans if plan.config.parallel != self.plans[0].config.parallel), None)


def candidates(config: RunConfig, gpus_a_node: int) -> Iterator[RunConfig]:
    """The configuration in every layout that is tried."""
    small = dataclasses.replace(
        config.vision,
        keep_activations_gib=SMALL_FRAMES[0],
        again_chunk_frames=min(int(SMALL_FRAMES[1]), config.vision.again_chunk_frames or int(SMALL_FRAMES[1])),
    )
    visions = [config.vision] if small == config.vision else [config.vision, small]
    optimizers = [config.optimizer]
    if config.optimizer.name == "adam" and not config.optimizer.distributed:
        optimizers.append(dataclasses.replace(config.optimizer, distributed=True))
    for tensor, pipeline, virtual, context, recompute, vision, optimizer in itertools.product(
        TENSOR, PIPELINE, VIRTUAL, CONTEXT, ("none", "full"), visions, optimizers
    ):
        if tensor > gpus_a_node or (virtual > 1 and pipeline == 1):
            continue
        parallel = ParallelConfig(
            tensor=tensor, pipeline=pipeline, virtual_pipeline=virtual, context=context, sequence_parallel=tensor > 1,
            recompute=recompute,
        )  # fmt: skip
        yield dataclasses.replace(config, parallel=parallel, vision=vision, optimizer=optimizer)


def search(config: RunConfig, ranks: int, cluster: Cluster, pack: ExpectedPack) -> Found:
    """Plan all candidates.

    Raises:
        InputError: an engine that has no layouts.
    """
    check_engine_of_plan(config)
    plans: list[RunPlan] = []
    nearest: RunPlan | None = None
    refused: Counter[str] = Counter()
    for candidate in candidates(config, cluster.gpus_a_node):
        try:
            check_layout(candidate, ranks)
        except InputError as error:
            refused[_kind(str(error))] += 1
            continue
        plan = plan_run(candidate, ranks, cluster, pack)
        if plan.fits:
            plans.append(plan)
            continue
        refused["memory"] += 1
        if nearest is None or plan.memory.worst.total < nearest.memory.worst.total:
            nearest = plan
    return Found(ranks, tuple(_sorted(plans, config)), dict(refused), nearest)


def _sorted(plans: list[RunPlan], config: RunConfig) -> list[RunPlan]:
    """The fastest first; of those that are as good as the fastest the simplest."""
    limit = ALIKE * min((plan.time.total for plan in plans), default=0.0)

    def order(plan: RunPlan) -> tuple[bool, float, float]:
        sizes, alike = plan.config.parallel, plan.time.total <= limit
        splits = sizes.tensor * sizes.pipeline * sizes.virtual_pipeline * sizes.context
        simple = splits * 4 + 2 * (plan.config.vision != config.vision) + (sizes.recompute == "full")
        return (not alike, simple if alike else plan.time.total, plan.time.total)

    return sorted(plans, key=order)


def _kind(sentence: str) -> str:
    """The field that a refusal names first."""
    return sentence.split(" ")[0] if not sentence.startswith("each replica") else "train.global_batch_size"


def smallest(config: RunConfig, cluster: Cluster, pack: ExpectedPack, ranks: int) -> Found | None:
    """The least number of GPUs from `ranks` on, doubling, on which anything fits; None if there is none.

    Args:
        pack: the average pack.
    """
    while ranks <= MOST_RANKS:
        batch = config.train.global_batch_size
        found = search(config, ranks, cluster, pack)
        if found.best is not None:
            return found
        if ranks > batch * TENSOR[-1] * PIPELINE[-1] * CONTEXT[-1]:
            return None  # more replicas than micro-batches
        ranks *= 2
    return None


def describe(config: RunConfig) -> str:
    """A layout as overrides of the command line."""
    parallel = config.parallel
    words = [
        f"parallel.{name}={getattr(parallel, name)}"
        for name in ("tensor", "pipeline", "virtual_pipeline", "context")
        if getattr(parallel, name) > 1
    ]
    words += ["parallel.sequence_parallel=true"] if parallel.sequence_parallel else []
    words += ["parallel.recompute=full"] if parallel.recompute == "full" else []
    return " ".join(words) or "parallel=single"


def other_words(config: RunConfig, base: RunConfig) -> str:
    """What differs beside the layout, as overrides."""
    names = ("keep_activations_gib", "again_chunk_frames")
    changed = [
        (name, getattr(config.vision, name)) for name in names if getattr(config.vision, name) != getattr(base.vision, name)
    ]
    words = [f"vision.{name}={value:g}" for name, value in changed]
    words += ["optimizer.distributed=true"] if config.optimizer.distributed != base.optimizer.distributed else []
    return " ".join(words)


def parse_ranks(words: list[str]) -> list[int]:
    """Numbers of GPUs from `8 64` or `8..4096`, which doubles.

    Raises:
        InputError: something else, or nothing.
    """
    numbers: list[int] = []
    for word in words:
        low, dots, high = word.partition("..")
        if not low.isdigit() or (dots and not high.isdigit()) or int(low) < 1:
            raise InputError(f"--ranks has {word!r}; write numbers of at least 1, or a range that doubles such as 8..4096")
        last = int(high) if dots else int(low)
        if not int(low) <= last <= MOST_RANKS:
            raise InputError(f"--ranks has {word!r}; a range rises, and ends at {MOST_RANKS} at most")
        ranks = int(low)
        while ranks <= last:
            numbers.append(ranks)
            ranks *= 2
    return sorted(set(numbers))


def missing(found: Found) -> str:
    """Why nothing fits a number of GPUs, in a sentence."""
    if found.nearest is not None:
        need = gb(found.nearest.memory.worst.total)
        worst = found.nearest.memory.worst
        kind, most = max(worst.phases[worst.worst].items(), key=lambda item: item[1])
        how = short(found.nearest.config.parallel)
        return f"no layout fits {found.ranks} GPUs: the least that a rank needs is {need} GB, {gb(most)} of it {kind} ({how})"
    reasons = ", ".join(f"{field} ({count})" for field, count in sorted(found.refused.items(), key=lambda item: -item[1]))
    return f"no layout is possible on {found.ranks} GPUs: refused by {reasons}"


def short(parallel: ParallelConfig) -> str:
    """A layout in a few letters: TP4 PP2 (V2) CP2, recompute."""
    words = [
        f"{letters}{size}"
        for letters, size in (
            ("TP", parallel.tensor),
            ("PP", parallel.pipeline),
            ("V", parallel.virtual_pipeline),
            ("CP", parallel.context),
        )
        if size > 1
    ]
    return " ".join(words or ["data parallel"]) + (", recompute" if parallel.recompute == "full" else "")
