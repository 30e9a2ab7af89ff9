"""`moss plan report`: one configuration on one number of GPUs."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from model.errors import InputError
from moss_train.cli.plan.shared import add_cluster_arguments, cluster_of, samples_of, steps_of, wide_console
from moss_train.config.arguments import add_config_arguments, config_from_args, print_config

if TYPE_CHECKING:
    from rich.table import Table

    from moss_train.config.schema import RunConfig
    from moss_train.planning.run_plan import RunPlan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the action."""
    add_config_arguments(parser)
    parser.add_argument(
        "--ranks",
        type=int,
        help="GPUs (default: launcher.nodes x launcher.nproc_per_node where they are several, else the fewest of parallel)",
    )
    add_cluster_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print the plan.

    Raises:
        InputError: what a run would refuse, or a run that does not fit the GPUs, with the smallest that would.
    """
    config = config_from_args(args)
    if args.print_config:
        print_config(config)
        return 0
    from moss_train import platform

    platform.install()
    from moss_train.planning.run_plan import check_layout, check_modules, plan_run

    cluster = cluster_of(args, config)
    ranks = _ranks(config) if args.ranks is None else args.ranks
    if ranks < 1:
        raise InputError(f"--ranks is {ranks}; it must be at least 1")
    check_layout(config, ranks)
    check_modules(config)
    pack, stream = samples_of(args, config)
    plan = plan_run(config, ranks, cluster, pack, steps=steps_of(args, config, pack), stream=stream)
    if args.json:
        print(json.dumps(plan.to_dict(), indent=1))
    else:
        _print(plan)
    if not plan.fits:
        raise InputError(f"the run does not fit: {plan.why_not()}; {_remedy(plan)}")
    return 0


def _ranks(config: RunConfig) -> int:
    """GPUs where none are named: the launcher's, else a single replica's."""
    launched = config.launcher.nodes * config.launcher.nproc_per_node
    sizes = config.parallel
    return launched if launched > 1 else sizes.tensor * sizes.pipeline * sizes.context


def _remedy(plan: RunPlan) -> str:
    """The cheapest that fits as many GPUs, else the least number of GPUs."""
    from moss_train.planning.layouts import describe, other_words, search, smallest

    found = search(plan.config, plan.ranks, plan.cluster, plan.pack)
    if found.best is None:
        bigger = smallest(plan.config, plan.cluster, plan.pack, plan.ranks)
        if bigger is None or bigger.best is None:
            return "no layout of any number of GPUs would; lower stage.sequence_length or train less (stage.trainable, lora.rank)"
        found = bigger
    assert found.best is not None
    words = " ".join(filter(None, (describe(found.best.config), other_words(found.best.config, plan.config))))
    return f"the cheapest that fits is {words} on {found.ranks} {plan.cluster.gpu.name}"


def _print(plan: RunPlan) -> None:
    from moss_train.planning.layouts import describe

    console = wide_console()
    console.print(
        f"[bold]{plan.config.stage.name}[/] on {plan.ranks} {plan.cluster.gpu.name}: {describe(plan.config)}, {plan.replicas} "
        f"replicas x {plan.micro_batches} micro-batches of {plan.pack.rows} rows"
    )
    for table in (_parameters(plan), _memory(plan), _operations(plan), _time(plan)):
        console.print(table)
    console.print(_summary(plan))


def _table(title: str, *columns: str) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    return table


def _parameters(plan: RunPlan) -> Table:
    table = _table("Parameters", "part", "millions")
    for part, count in vars(plan.parameters).items():
        table.add_row(part.replace("_", " "), f"{count / 1e6:,.1f}")
    table.add_row("all", f"{plan.parameters.total / 1e6:,.1f}")
    table.add_row("trained", f"{plan.trained / 1e6:,.1f}")
    return table


def _memory(plan: RunPlan) -> Table:
    """By kind in the phase with each stage's peak."""
    stages = plan.memory.stages
    title = (
        "Memory of a rank in GB, at the peak of every phase" if len(stages) == 1 else "Memory of a rank in GB, by pipeline stage"
    )
    if len(stages) == 1:
        phases = list(stages[0].phases)
        table = _table(title, "", *phases)
        columns = [stages[0].phases[phase] for phase in phases]
    else:
        table = _table(title, "", *(f"{s.stage}: {s.worst}" for s in stages))
        columns = [s.phases[s.worst] for s in stages]
    kinds = list(dict.fromkeys(kind for column in columns for kind in column))
    for kind in kinds:
        if any(column.get(kind) for column in columns):
            table.add_row(kind, *(_gb(column.get(kind, 0)) for column in columns))
    table.add_row("outside the allocator", *(_gb(stages[i if len(stages) > 1 else 0].outside) for i in range(len(columns))))
    sums = [sum(column.values()) + stages[i if len(stages) > 1 else 0].outside for i, column in enumerate(columns)]
    table.add_row("sum", *(f"[bold]{_gb(value)}[/]" for value in sums))
    return table


def _gb(value: float) -> str:
    return f"{value / 1e9:.1f}" if value else "-"


def _operations(plan: RunPlan) -> Table:
    table = _table("Operations of a step in PFLOP", "part", "needed", "done")
    for part in vars(plan.needed):
        table.add_row(part, f"{getattr(plan.needed, part) / 1e15:,.2f}", f"{getattr(plan.done, part) / 1e15:,.2f}")
    table.add_row("all", f"{plan.needed.total / 1e15:,.2f}", f"{plan.done.total / 1e15:,.2f}")
    return table


def _time(plan: RunPlan) -> Table:
    table = _table("Predicted seconds of a step", "part", "s", "share")
    for part, seconds in vars(plan.time).items():
        table.add_row({"back": "return"}.get(part, part.replace("_", " ")), f"{seconds:.3f}", f"{seconds / plan.time.total:.0%}")
    table.add_row("all", f"[bold]{plan.time.total:.3f}[/]", "")
    return table


def _summary(plan: RunPlan) -> Any:
    second = 1 / plan.time.total
    rows = plan.pack.rows * plan.config.train.global_batch_size
    lines = [
        f"Average pack ({plan.pack.source}): {plan.pack.frames:.1f} frames, {plan.pack.samples:.1f} samples, "
        f"{1 - plan.pack.real_rows / plan.pack.rows:.0%} padding",
        f"Predicted: {plan.samples * second:,.1f} samples/s, {rows * second:,.0f} rows/s, MFU {plan.mfu:.0%}",
        f"{plan.steps:,} steps: {plan.days:.2f} days, {plan.gpu_hours:,.0f} GPU-hours"
        + (f", {plan.cost:,.0f} USD" if plan.cost is not None else ""),
    ]
    if plan.load is not None:
        load = plan.load
        lines.append(
            f"The loader owes every GPU {load.frames:.1f} frames/s ({load.decoded:,.0f} decoded), which takes {load.cores:.1f} "
            f"cores and {load.bytes / 1e6:.1f} MB/s from storage"
        )
    gpu = plan.cluster.gpu
    worst = plan.memory.worst
    fit = "[green]fits[/]" if plan.fits else "[red]does not fit[/]"
    lines.append(f"{worst.total / 1e9:.1f} GB of the {gpu.memory / 1e9:.1f} GB of an {gpu.name}: {fit}")
    if worst.host:
        lines.append(f"{worst.host / 1e9:.1f} GB of host memory for each GPU hold states of frames (vision.keep_host_gib)")
    if not plan.cluster.reached.measured:
        lines.append(f"Nothing was measured on an {gpu.name}: its rates are assumed")
    return "\n".join(lines)
