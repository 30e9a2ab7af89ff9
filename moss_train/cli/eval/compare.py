"""`moss eval compare`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from inference.evaluation.comparing import Compared, Margins
    from inference.evaluation.statistics.bootstrap import BootstrapSettings

EXIT_NOT_KEPT = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the action."""
    parser.add_argument("a", type=Path, metavar="A", help="folder of the run to compare with, such as the SFT checkpoint's")
    parser.add_argument("b", type=Path, metavar="B", help="folder of the run that is asked about")
    parser.add_argument(
        "--scenarios", type=Path, nargs="+", default=[], help="scenario files, for folders with traces that were not scored"
    )
    add_keeps(parser)
    add_statistics(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def add_keeps(parser: argparse.ArgumentParser) -> None:
    """What must be kept, and how well."""
    parser.add_argument(
        "--keeps",
        action="append",
        nargs="+",
        default=[],
        metavar="WHAT",
        help=(
            "check that B keeps A's scores: offline, push, poll or teacher for all metrics of that mode, or names of metrics "
            "(SUITE/METRIC, * stands for anything); exit code 1 where that is not shown"
        ),
    )
    parser.add_argument(
        "--margin",
        action="append",
        default=[],
        metavar="[METRIC=]LOSS",
        help="largest loss that does not matter, in the metric's unit (default 0.01); of single metrics as METRIC=LOSS",
    )


def add_statistics(parser: argparse.ArgumentParser) -> None:
    """Options of intervals and tests."""
    parser.add_argument("--resamples", type=int, default=1000, help="of clusters, and exchanges of them (default 1000)")
    parser.add_argument("--confidence", type=float, default=0.95, help="of intervals and verdicts (default 0.95)")
    parser.add_argument("--seed", type=int, default=0, help="of resampling (default 0); the same seed gives the same numbers")


def statistics_of(arguments: argparse.Namespace) -> BootstrapSettings:
    """Of the options that `add_statistics` adds."""
    from inference.evaluation.statistics.bootstrap import BootstrapSettings

    return BootstrapSettings(resamples=arguments.resamples, seed=arguments.seed, confidence=arguments.confidence)


def margins_of(arguments: argparse.Namespace) -> tuple[list[str], Margins]:
    """What must be kept, and the margins, of the options that `add_keeps` adds."""
    return [what for group in arguments.keeps for what in group], _margins(arguments.margin)


def run(arguments: argparse.Namespace) -> int:
    """Compare, print; 1 where --keeps asks for what is not shown to be kept."""
    from inference.evaluation.comparing import compare_results
    from inference.evaluation.results import load_by_id, load_results

    settings = statistics_of(arguments)
    keeps, margins = margins_of(arguments)
    scenarios = load_by_id(arguments.scenarios)
    names = _names(arguments.a, arguments.b)
    a, b = (load_results(n, f, scenarios) for n, f in zip(names, (arguments.a, arguments.b), strict=True))
    with bar("comparing") as on_done:
        found = compare_results(a, b, settings, keeps=keeps, margins=margins, on_done=on_done)
    found.notes = [*a.notes, *b.notes, *found.notes]
    if arguments.json:
        print(json.dumps(found.as_dict(), indent=1))
    else:
        _print(found)
    return 0 if found.kept else EXIT_NOT_KEPT


@contextmanager
def bar(label: str) -> Iterator[Callable[..., None]]:
    """A progress bar on stderr for what tells (done, all), and what is being done where that changes."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=None)

        def show(done: int, total: int, what: str = label) -> None:
            progress.update(task, completed=done, total=total, description=what)

        yield show


def _names(a: Path, b: Path) -> tuple[str, str]:
    """Names of folders, as short as they still differ."""
    first, second = a.resolve().parts, b.resolve().parts
    for length in range(1, max(len(first), len(second)) + 1):
        if first[-length:] != second[-length:]:
            return "/".join(first[-length:]), "/".join(second[-length:])
    return f"{first[-1]} (A)", f"{second[-1]} (B)"


def _margins(values: list[str]) -> Margins:
    from inference.evaluation.comparing import Margins

    default, by_metric = 0.01, {}
    for value in values:
        metric, _, number = value.rpartition("=")
        try:
            margin = float(number)
        except ValueError:
            raise InputError(f"--margin {value!r} is no number; give LOSS or METRIC=LOSS, such as 0.01") from None
        if not 0 <= margin < float("inf"):
            raise InputError(f"--margin {value!r} must be 0 or more; it is the largest loss that does not matter")
        if metric:
            by_metric[metric] = margin
        else:
            default = margin
    return Margins(default=default, by_metric=by_metric)


def _print(found: Compared) -> None:
    from rich.console import Console

    console = Console(width=None if Console().is_terminal else 140)
    for suite, comparison in found.suites.items():
        console.print(_table(found, suite))
        console.print(f"{comparison.items} items in {comparison.clusters} clusters\n", highlight=False)
    for note in found.notes:
        console.print(note, highlight=False)
    for name, kept in found.keeps.items():
        most = "no bound" if kept.at_most is None else f"at most {kept.at_most:.4f}"
        loss = "" if kept.loss is None else f", loss {kept.loss:.4f}, {most}, margin {kept.margin:g}"
        console.print(f"{kept.verdict}: {name}{loss}", highlight=False)
    if found.keeps:
        console.print(
            f"{found.b} keeps the scores of {found.a}"
            if found.kept
            else f"not shown that {found.b} keeps the scores of {found.a}"
        )


def _table(found: Compared, suite: str) -> Table:
    from rich.table import Table

    from inference.evaluation.comparing import verdict

    comparison = found.suites[suite]
    share = f"{100 * comparison.settings.confidence:g} %"
    table = Table(title=suite, title_justify="left")
    table.add_column("metric")
    for heading in (found.a, found.b, "difference", share, "p", "p, Holm"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for name, one in comparison.metrics.items():
        if one.difference is None:
            continue
        between = "" if one.low is None or one.high is None else f"{one.low:+.3f} … {one.high:+.3f}"
        cells = [_text(one.a), _text(one.b), f"{one.difference:+.3f}", between, _text(one.p), _text(one.p_holm)]
        table.add_row(name, *cells, verdict(suite, name, one, comparison))
    return table


def _text(value: Any) -> str:
    return "–" if value is None else f"{value:.3f}"
