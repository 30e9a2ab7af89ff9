"""`moss plan layouts`: the cheapest layout that fits, for every number of GPUs."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from model.errors import InputError
from moss_train.cli.plan.shared import add_cluster_arguments, cluster_of, samples_of, steps_of, wide_console
from moss_train.config.arguments import add_config_arguments, config_from_args, print_config

if TYPE_CHECKING:
    from moss_train.config.schema import RunConfig
    from moss_train.planning.layouts import Found
    from moss_train.planning.run_plan import RunPlan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the action."""
    add_config_arguments(parser)
    parser.add_argument(
        "--ranks", nargs="+", default=["8..512"], metavar="N", help="numbers of GPUs, or a range that doubles (default: 8..512)"
    )
    add_cluster_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print a row for each number.

    Raises:
        InputError: nothing fits any of the numbers, with the smallest that would.
    """
    config = config_from_args(args)
    if args.print_config:
        print_config(config)
        return 0
    from moss_train import platform

    platform.install()
    from moss_train.planning.layouts import missing, parse_ranks, search, smallest
    from moss_train.planning.run_plan import check_modules

    cluster, ranks = cluster_of(args, config), parse_ranks(args.ranks)
    check_modules(config)
    pack, _ = samples_of(args, config)
    steps = steps_of(args, config, pack)
    founds = [search(config, count, cluster, pack) for count in ranks]
    if args.json:
        print(json.dumps([_row(found) for found in founds], indent=1))
    else:
        _print(founds, config, steps)
    if any(found.best for found in founds):
        return 0
    bigger = smallest(config, cluster, pack, ranks[-1])
    remedy = f"{bigger.ranks} {cluster.gpu.name} would do" if bigger else "raise train.global_batch_size, or train less"
    raise InputError(f"{missing(founds[-1])}; {remedy}")


def _row(found: Found) -> dict[str, object]:
    plans = {"best": found.best, "second": found.second}
    return {
        "ranks": found.ranks,
        "fitting": len(found.plans),
        "refused": found.refused,
        **{name: None if plan is None else plan.to_dict() for name, plan in plans.items()},
    }


def _print(founds: list[Found], config: RunConfig, steps: int) -> None:
    from rich.table import Table

    from moss_train.planning.layouts import missing

    title = f"{config.stage.name}, global batch {config.train.global_batch_size}: cheapest layouts (predicted)"
    table = Table(title=title, title_justify="left", title_style="bold")
    for i, column in enumerate(("GPUs", "layout", "GB", "s a step", "MFU", "days", "cost", "runner-up")):
        table.add_column(column, justify="left" if i in (1, 7) else "right")
    for found in founds:
        if found.best is None:
            table.add_row(str(found.ranks), missing(found), *["-"] * 6)
            continue
        best, second = found.best, found.second
        days = steps * best.time.total / 86400
        price = best.cluster.price
        cost = "-" if price is None else f"{days * 24 * found.ranks * price:,.0f}"
        runner = "-" if second is None else f"{_words(second, config)}: {second.time.total:.2f} s"
        table.add_row(
            str(found.ranks), _words(best, config), f"{best.memory.worst.total / 1e9:.1f}", f"{best.time.total:.2f}",
            f"{best.mfu:.0%}", f"{days:.2f}", cost, runner,
        )  # fmt: skip
    console = wide_console()
    console.print(table)
    for found in founds:
        reasons = ", ".join(f"{count} by {field}" for field, count in sorted(found.refused.items(), key=lambda item: -item[1]))
        console.print(f"{found.ranks} GPUs: {len(found.plans)} layouts fit; refused: {reasons or 'none'}")


def _words(plan: RunPlan, config: RunConfig) -> str:
    from moss_train.planning.layouts import other_words, short

    words = short(plan.config.parallel)
    words += ", frames' state not kept" if "vision" in other_words(plan.config, config) else ""
    return words + (", distributed optimizer" if "optimizer" in other_words(plan.config, config) else "")
