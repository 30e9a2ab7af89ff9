"""`moss plan communication`: what a step sends over which link, and how throughput grows with the number of GPUs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from model.errors import InputError
from moss_train.cli.plan.shared import add_cluster_arguments, cluster_of, samples_of, wide_console
from moss_train.config.arguments import add_config_arguments, config_from_args, print_config

if TYPE_CHECKING:
    from rich.table import Table

    from moss_train.planning.communication.scaling import CommunicationPlan, Point


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the action."""
    add_config_arguments(parser)
    parser.add_argument(
        "--ranks", nargs="+", metavar="N",
        help="numbers of GPUs, or a range that doubles as 8..512 (default: the launcher's where they are several, else the "
        "smallest number that parallel allows)",
    )  # fmt: skip
    add_cluster_arguments(parser)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw efficiency by number of GPUs into this SVG file")


def run(args: argparse.Namespace) -> int:
    """Print the calls of a step on the first number of GPUs, and how throughput grows over all of them.

    Raises:
        InputError: what a run of the first number would refuse, what is not counted, or a plot that has nowhere to go.
    """
    config = config_from_args(args)
    if args.print_config:
        print_config(config)
        return 0
    from moss_train import platform

    platform.install()
    from moss_train.planning.communication.scaling import (
        efficiency,
        growth_plot,
        plan_communication,
        strong_scaling,
        weak_scaling,
    )
    from moss_train.planning.layouts import parse_ranks

    cluster, sizes = cluster_of(args, config), config.parallel
    launched = config.launcher.nodes * config.launcher.nproc_per_node
    one = launched if launched > 1 else sizes.tensor * sizes.pipeline * sizes.context
    numbers = parse_ranks(args.ranks) if args.ranks else [one]
    _check_plot(args.plot, numbers)
    pack, stream = samples_of(args, config)
    plan = plan_communication(config, numbers[0], cluster, pack, stream)
    series: dict[str, list[Point]] = {}
    if len(numbers) > 1:
        series["strong"] = strong_scaling(config, numbers, cluster, pack, stream)
        series["weak"] = weak_scaling(config, numbers, cluster, pack, stream)
    if args.plot is not None:
        args.plot.write_text(growth_plot(series), encoding="utf-8")
    if args.json:
        content = {"gpu": cluster.gpu.name, "network_gbps": cluster.network_gbps, "pack": pack.source, **plan.to_dict()}
        content |= {name: _series(points, efficiency(points)) for name, points in series.items()}
        print(json.dumps(content, indent=1))
        return 0
    console = wide_console()
    console.print(_calls(plan))
    console.print(_summary(plan))
    for name, points in series.items():
        console.print(_growth(name, points, efficiency(points)))
    return 0


def _check_plot(path: Path | None, numbers: list[int]) -> None:
    if path is None:
        return
    if len(numbers) < 2:
        raise InputError(f"--plot {path}: one number of GPUs grows nowhere; give several, as --ranks 8..512")
    if not path.absolute().parent.is_dir():
        raise InputError(f"--plot {path}: there is no folder {path.absolute().parent}; make it first")


def _series(points: list[Point], efficiencies: list[float | None]) -> list[dict[str, object]]:
    return [
        {"ranks": p.ranks, "refused": p.reason} if p.plan is None else {**p.plan.to_dict(), "efficiency": e}
        for p, e in zip(points, efficiencies, strict=True)
    ]


def _megabytes(value: float) -> str:
    return f"{value / 1e6:,.1f}" if value >= 5e4 else f"{value / 1e6:.1g}" if value else "-"


def _calls(plan: CommunicationPlan) -> Table:
    from rich.table import Table

    from moss_train.planning.layouts import short

    sizes = plan.config.parallel
    title = (
        f"{plan.config.stage.name} on {plan.ranks} {plan.cluster.gpu.name}: {short(sizes)}, {plan.replicas} replicas x "
        f"{plan.micro_batches} micro-batches. Calls of rank {plan.rank}, whose links are busiest, in a step"
    )
    table = Table(title=title, title_justify="left", title_style="bold")
    for i, column in enumerate(("purpose", "kind", "group", "calls", "MB", "MB on the wire", "link", "ms", "share")):
        table.add_column(column, justify="left" if i in (0, 1, 2, 6) else "right")
    for row in sorted(plan.rows(), key=lambda row: -row["seconds"]):
        table.add_row(
            row["purpose"], row["kind"], f"{row['group']} of {row['ranks']}", f"{row['calls']:,.10g}",
            _megabytes(row["payload"]), _megabytes(row["wire"]), row["link"], f"{1e3 * row['seconds']:.1f}",
            f"{row['share']:.1%}",
        )  # fmt: skip
    return table


def _summary(plan: CommunicationPlan) -> str:
    lines = [
        f"Predicted: {plan.computing.total:.3f} s of computing, {plan.communication:.3f} s of communication, one after the "
        f"other: {plan.step:.3f} s a step, {plan.throughput:,.1f} samples/s",
        f"If all overlapped that can, {plan.exposed:.3f} s of it would be left: {plan.best:.3f} s a step",
        "Calls and bytes are the trainer's (`moss verify communication` counts them); seconds are bytes over assumed rates",
    ]
    return "\n".join(lines)


def _growth(name: str, points: list[Point], efficiencies: list[float | None]) -> Table:
    from rich.table import Table

    fixed = {"strong": "the same global batch", "weak": "the same micro-batches of a replica"}[name]
    title = f"{name.capitalize()} scaling (predicted): {fixed}"
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in ("GPUs", "global batch", "s a step", "samples/s", "efficiency", "communication", "left if overlapped"):
        table.add_column(column, justify="right")
    for point, share in zip(points, efficiencies, strict=True):
        plan = point.plan
        if plan is None:
            table.add_row(str(point.ranks), *["-"] * 6)
            continue
        table.add_row(
            str(plan.ranks), str(plan.config.train.global_batch_size), f"{plan.step:.3f}", f"{plan.throughput:,.1f}",
            f"{share:.0%}", f"{plan.communication / plan.step:.1%}", f"{plan.exposed / plan.best:.1%}",
        )  # fmt: skip
    table.caption = "\n".join(dict.fromkeys(f"{p.ranks}: {p.reason}" for p in points if p.plan is None)) or None
    return table
