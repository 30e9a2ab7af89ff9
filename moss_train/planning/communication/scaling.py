"""Predicted time of a step with its communication, and how throughput grows with the number of GPUs. A prediction.

Operations and passes over memory take what `moss_train.planning.step_time` says of a cluster whose links cost nothing; to that
come the calls of the rank whose links are busiest. As the trainer works nothing overlaps; what could at best is said beside it:

    gradients, weights    behind the backward passes of decoder and tower
    pipeline              behind the stages' own work, where virtual stages are used
    activations           the backward sums of tensor parallelism, behind the weights' gradients: half of them
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from model.errors import InputError
from moss_train.config.schema import RunConfig
from moss_train.planning.communication.calls import Key, Traffic, on_wire
from moss_train.planning.communication.links import Carried, carried, seconds_of
from moss_train.planning.communication.shape import drawn_shape
from moss_train.planning.communication.step import check_counted, step_traffic
from moss_train.planning.data_items import DataItem
from moss_train.planning.expected import ExpectedPack
from moss_train.planning.hardware import Cluster
from moss_train.planning.run_plan import check_layout
from moss_train.planning.step_time import StepTime, step_time

Stream = Callable[[int], Iterator[DataItem]]
WAITED = ("activations", "loss", "context")
"""Purposes inside a micro-batch's passes, for which the other pipeline stages wait too."""


@dataclass(frozen=True)
class CommunicationPlan:
    """A step of a run on a number of GPUs."""

    config: RunConfig
    ranks: int
    replicas: int
    micro_batches: int
    """Of a replica in a step."""
    rank: int
    """Whose links are busiest; of the first replica."""
    traffic: Traffic
    """Of that rank."""
    computing: StepTime
    """Seconds of the step without any communication."""
    cluster: Cluster
    samples: float
    """In a step."""

    def carried(self, key: Key) -> Carried:
        """What the links carry of one kind of calls."""
        return carried(key, self.traffic.get(key), self.config.parallel, self.replicas, self.cluster.gpus_a_node)

    @property
    def bubble(self) -> float:
        """Factor of waiting in the pipeline."""
        parallel = self.config.parallel
        return 1 + (parallel.pipeline - 1) / (self.micro_batches * parallel.virtual_pipeline)

    def seconds(self, key: Key) -> float:
        """Of one kind of calls."""
        return self.carried(key).seconds(self.cluster) * (self.bubble if key.purpose in WAITED else 1.0)

    @property
    def communication(self) -> float:
        """Seconds of all calls, one after the other."""
        return sum(self.seconds(key) for key, _ in self.traffic)

    @property
    def step(self) -> float:
        """Seconds of a step as the trainer works."""
        return self.computing.total + self.communication

    @property
    def exposed(self) -> float:
        """Seconds of communication that would be left if all overlapped that can."""
        hidden = dict.fromkeys(("gradients", "weights", "activations", "pipeline"), 0.0)
        for key, _ in self.traffic:
            if key.purpose in hidden:
                hidden[key.purpose] += self.seconds(key)
        hidden["activations"] /= 4  # half of the calls are of the backward pass, and half of its products are the weights'
        hidden["pipeline"] *= self.config.parallel.virtual_pipeline > 1
        behind = 2 / 3 * self.computing.decode + self.computing.back
        return self.communication - min(sum(hidden.values()), behind)

    @property
    def best(self) -> float:
        """Seconds of a step if all overlapped that can."""
        return self.computing.total + self.exposed

    @property
    def throughput(self) -> float:
        """Samples a second, nothing overlapping."""
        return self.samples / self.step

    def rows(self) -> list[dict[str, Any]]:
        """The table: one row for each purpose, kind and group."""
        return [
            {
                **key._asdict(), "calls": calls.count, "payload": calls.payload, "wire": on_wire(key, calls),
                "link": self.carried(key).link, "nvlink": self.carried(key).nvlink, "network": self.carried(key).network,
                "seconds": self.seconds(key), "share": self.seconds(key) / self.step,
            }
            for key, calls in self.traffic
        ]  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "ranks": self.ranks,
            "replicas": self.replicas,
            "micro_batches": self.micro_batches,
            "global_batch_size": self.config.train.global_batch_size,
            "rank": self.rank,
            "rows": self.rows(),
            "seconds": {
                "computing": self.computing.total, "communication": self.communication, "step": self.step,
                "exposed": self.exposed, "best": self.best,
            },
            "samples_per_second": self.throughput,
        }  # fmt: skip


def without_links(cluster: Cluster) -> Cluster:
    """The same GPUs with links that carry anything at once."""
    return dataclasses.replace(cluster, gpu=dataclasses.replace(cluster.gpu, link=math.inf), network_gbps=math.inf)


def plan_communication(
    config: RunConfig, ranks: int, cluster: Cluster, pack: ExpectedPack, stream: Stream | None
) -> CommunicationPlan:
    """Predict a step's communication.

    Args:
        ranks: GPUs.
        pack: the average pack.
        stream: samples by seed, of which a step's packs are drawn; None takes the average one.

    Raises:
        InputError: what a run in this layout would refuse, or what is not counted.
    """
    check_counted(config)
    replicas, micro_batches = check_layout(config, ranks)
    shape = drawn_shape(config, replicas, pack, stream)
    sizes = config.parallel
    stage = sizes.tensor * sizes.context * replicas
    # Tensor-parallel ranks differ in nothing but who encodes a frame more; the first of them reads.
    members = [p * stage + c * sizes.tensor for p in range(sizes.pipeline) for c in range(sizes.context)]
    found = {rank: step_traffic(config, ranks, shape, rank) for rank in members}
    busiest = max(members, key=lambda rank: sum(seconds_of(found[rank], sizes, replicas, cluster).values()))
    work = pack.work(config.train.global_batch_size)
    computing = step_time(config, ranks, work, without_links(cluster), micro_batches)
    return CommunicationPlan(
        config, ranks, replicas, micro_batches, busiest, found[busiest], computing, cluster,
        pack.samples * config.train.global_batch_size,
    )  # fmt: skip


@dataclass(frozen=True)
class Point:
    """One number of GPUs of a series."""

    ranks: int
    plan: CommunicationPlan | None
    """None where the layout does not fit the number."""
    reason: str = ""


def strong_scaling(
    config: RunConfig, numbers: list[int], cluster: Cluster, pack: ExpectedPack, stream: Stream | None
) -> list[Point]:
    """The same global batch on more and more GPUs."""
    return [_point(config, ranks, cluster, pack, stream) for ranks in numbers]


def weak_scaling(
    config: RunConfig, numbers: list[int], cluster: Cluster, pack: ExpectedPack, stream: Stream | None
) -> list[Point]:
    """As many micro-batches for every replica as the first number has."""
    sizes = config.parallel
    model_parallel = sizes.tensor * sizes.pipeline * sizes.context
    each = config.train.global_batch_size * model_parallel / numbers[0]
    points = []
    for ranks in numbers:
        train = dataclasses.replace(config.train, global_batch_size=max(1, round(each * ranks / model_parallel)))
        points.append(_point(dataclasses.replace(config, train=train), ranks, cluster, pack, stream))
    return points


def _point(config: RunConfig, ranks: int, cluster: Cluster, pack: ExpectedPack, stream: Stream | None) -> Point:
    try:
        return Point(ranks, plan_communication(config, ranks, cluster, pack, stream))
    except InputError as error:
        return Point(ranks, None, str(error))


def efficiency(points: list[Point]) -> list[float | None]:
    """Samples a second of a GPU, in units of those of the first number that fits."""
    fitting = [point.plan for point in points if point.plan is not None]
    if not fitting:
        return [None] * len(points)
    one = fitting[0].throughput / fitting[0].ranks
    return [None if point.plan is None else point.plan.throughput / point.ranks / one for point in points]


def growth_plot(series: dict[str, list[Point]]) -> str:
    """Efficiency over doublings, as SVG."""
    from moss_train.report.chart import Series, line_chart

    lines = []
    for name, points in series.items():
        found = [(math.log2(p.ranks), 100 * e) for p, e in zip(points, efficiency(points), strict=True) if e is not None]
        lines.append(Series(name, [x for x, _ in found], [y for _, y in found], dots=True))
    return line_chart("Predicted samples/s of a GPU", lines, unit="% of the first number", x_label="doublings of one GPU") + "\n"
