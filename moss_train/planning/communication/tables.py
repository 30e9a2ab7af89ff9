"""The tables of docs/scaling.md: what recipes send, and how throughput should grow. `moss_train.planning.pages` writes them."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

from moss_train.planning.communication.calls import Key
from moss_train.planning.communication.scaling import (
    CommunicationPlan,
    Point,
    efficiency,
    plan_communication,
    strong_scaling,
    weak_scaling,
)
from moss_train.planning.data_items import SourceVideo
from moss_train.planning.expected import workload_stream
from moss_train.planning.hardware import Cluster
from moss_train.planning.layouts import short
from moss_train.planning.recipes import SOURCE, average_pack, recipe

RECIPES = (
    "pt1_11b_8", "pt1_11b_64", "pt1_11b_512", "pt2_11b_8", "pt2_11b_64", "pt2_11b_512", "pt1_90b_8", "pt1_90b_64",
    "pt1_90b_512", "pt2_90b_8_lora", "pt2_90b_64", "pt2_90b_512",
)  # fmt: skip
GROWN = "pt2_11b_64"
"""The recipe whose number of GPUs grows."""
NUMBERS = {"strong": [8, 16, 32, 64, 128, 256], "weak": [8, 16, 32, 64, 128, 256, 512]}
COLUMNS = ("tensor", "context", "pipeline", "data", "vision unit", "frames", "rest")
SENT = (
    "| `experiment=` | layout | packs of a replica | "
    + " | ".join(COLUMNS)
    + " | s a step | of it communication | left if overlapped |",
    "| --- | --- | ---: " + "| ---: " * (len(COLUMNS) + 3) + "|",
)
GROWTH = (
    "| | GPUs | packs | s a step | samples/s | efficiency | of it communication | left if overlapped |",
    "| --- " + "| ---: " * 7 + "|",
)


def column(key: Key) -> str:
    """Which of `COLUMNS` calls belong to."""
    if key.purpose == "activations":
        return "tensor"
    if key.purpose in ("context", "pipeline"):
        return key.purpose if key.kind != "receive" else ""
    if key.purpose in ("gradients", "weights"):
        return "vision unit" if key.group == "world" else "data"
    return "frames" if key.purpose in ("pixels", "features") else "rest"


def sent() -> Iterator[str]:
    """The table of recipes."""
    yield from SENT
    for name in RECIPES:
        plan = _plan(name)
        sums = dict.fromkeys(COLUMNS, 0.0)
        for row in plan.rows():
            where = column(Key(row["purpose"], row["kind"], row["group"], row["ranks"]))
            if where:
                sums[where] += row["wire"]
        cells = [f"{size / 1e9:.2f}" if size or kind == "rest" else "-" for kind, size in sums.items()]
        yield (
            f"| `{name}` | {short(plan.config.parallel)} | {plan.micro_batches} | {' | '.join(cells)} | {plan.step:.2f} | "
            f"{plan.communication / plan.step:.1%} | {plan.exposed / plan.best:.1%} |"
        )


def growth() -> Iterator[str]:
    """The table of strong and weak scaling."""
    yield from GROWTH
    for name, points in series().items():
        for point, share in zip(points, efficiency(points), strict=True):
            plan = point.plan
            assert plan is not None, point.reason
            yield (
                f"| {name} | {plan.ranks} | {plan.config.train.global_batch_size} | {plan.step:.2f} | {plan.throughput:.1f} | "
                f"{share:.0%} | {plan.communication / plan.step:.1%} | {plan.exposed / plan.best:.1%} |"
            )


@functools.cache
def series() -> dict[str, list[Point]]:
    """Points of both kinds of scaling."""
    config = recipe(GROWN)
    cluster, stream = Cluster.of("H100"), workload_stream(config, SourceVideo.parse(SOURCE))
    pack = average_pack(config)
    return {
        "strong": strong_scaling(config, NUMBERS["strong"], cluster, pack, stream),
        "weak": weak_scaling(config, NUMBERS["weak"], cluster, pack, stream),
    }


def _plan(name: str) -> CommunicationPlan:
    config = recipe(name)
    ranks = config.launcher.nodes * config.launcher.nproc_per_node
    stream = workload_stream(config, SourceVideo.parse(SOURCE))
    return plan_communication(config, ranks, Cluster.of(config.launcher.gpu), average_pack(config), stream)


def recorded(content: dict[str, Any]) -> str:
    """docs/benchmarks/communication.json with the plans of now beside what was counted, an entry a line."""
    planned = {name: _rounded(_without(_plan(name).to_dict(), LEFT_OUT)) for name in RECIPES}
    growth = {
        name: [
            _rounded({**_without(point.plan.to_dict(), GROWTH_LEFT_OUT), "efficiency": share})
            for point, share in zip(points, efficiency(points), strict=True) if point.plan is not None
        ]
        for name, points in series().items()
    }  # fmt: skip
    counted = ",\n".join(json.dumps(entry) for entry in content["counted"])
    plans = ",\n".join(f"{json.dumps(name)}: {json.dumps(plan)}" for name, plan in planned.items())
    return (
        f'{{\n"software": {json.dumps(content["software"])},\n"counted": [\n{counted}\n],\n"planned": {{\n{plans}\n}},\n'
        f'"growth": {json.dumps(growth)}\n}}\n'
    )


LEFT_OUT = ("global_batch_size", "samples_per_second")
GROWTH_LEFT_OUT = ("rows", "replicas", "micro_batches", "rank")


def _without(values: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _rounded(value: Any) -> Any:
    """Numbers to four digits."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value
