"""`moss eval report`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from model.errors import InputError
from moss_train.cli.eval.compare import add_keeps, add_statistics, bar, margins_of, statistics_of

if TYPE_CHECKING:
    from inference.evaluation.reporting.content import ReportRequest
    from inference.evaluation.results import Results


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the action."""
    parser.add_argument(
        "--eval", action="append", default=[], metavar="NAME=DIR", help="a folder written by `moss eval` or `moss eval score`; "
        "the first is the main one (repeatable)"
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="the page to write; its numbers go beside it as .json")
    parser.add_argument(
        "--lmms",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="what lmms-eval wrote for a model (--output_path): shown beside published figures, and with --log_samples also with "
        "intervals (repeatable)",
    )
    parser.add_argument(
        "--scenarios", type=Path, nargs="+", default=[], help="scenario files; default: those that the runs recorded"
    )  # fmt: skip
    parser.add_argument("--no-baselines", action="store_true", help="leave out the baselines in the first evaluation's folder")
    parser.add_argument(
        "--compare", action="append", nargs=2, metavar=("A", "B"), help="names to compare, B against A (repeatable); default: "
        "every other --eval against the first"
    )  # fmt: skip
    add_keeps(parser)
    add_statistics(parser)
    parser.add_argument("--timelines", type=int, default=12, help="scenarios of which a timeline is drawn (default 12)")
    parser.add_argument("--title", default="Evaluation")
    parser.add_argument("--intro", default="", help="paragraph under the title")
    parser.add_argument("--commands", type=Path, help="text file with commands to print besides those that the runs recorded")
    parser.add_argument("--wandb", metavar="PROJECT", help="also send items, metrics and the page to this W&B project")
    parser.add_argument("--wandb-entity", help="user or team; default: that of the account")
    parser.add_argument("--wandb-name", help="of the W&B run; default: the page's name")


def run(arguments: argparse.Namespace) -> int:
    """Read, compute, draw, write; prints the page's path."""
    from inference.evaluation.reporting.content import build
    from inference.evaluation.reporting.published import published_tables
    from moss_train.report.evaluation.page import write_page

    out: Path = arguments.out
    if out.suffix not in (".html", ".htm") or out.is_dir():
        raise InputError(f"--out {out} is not the name of a page; give a file that ends in .html")
    commands = arguments.commands.read_text(encoding="utf-8").splitlines() if arguments.commands else []
    request = _request(arguments)
    with bar("computing") as show:
        content = build(request, lambda what, done, total: show(done, total, what))
    content["published"] = published_tables(_named_folders("--lmms", arguments.lmms))
    if arguments.lmms and not content["published"]:
        content["notes"].append("No task of the published table was measured with lmms-eval.")
    numbers = write_page(out, content, title=arguments.title, intro=arguments.intro, commands=commands)
    print(out)
    if arguments.wandb:
        from moss_train.report.evaluation.wandb_upload import Upload, upload

        everyone = [*request.models, *request.baselines]
        name = arguments.wandb_name or out.stem
        what = Upload(project=arguments.wandb, entity=arguments.wandb_entity, name=name, page=out, numbers=numbers)
        print(upload(what, content, {one.name: one.items for one in everyone}, folder=out.parent))
    return 0


def _request(arguments: argparse.Namespace) -> ReportRequest:
    from inference.evaluation.reporting.content import ReportRequest
    from inference.evaluation.results import baselines_in, load_by_id, load_results, scenarios_of

    statistics = statistics_of(arguments)
    if arguments.timelines < 0:
        raise InputError(f"--timelines is {arguments.timelines}; it must be 0 or more")
    folders, harness = _named_folders("--eval", arguments.eval), _named_folders("--lmms", arguments.lmms)
    if not folders and not harness:
        raise InputError("nothing to report: give at least one --eval NAME=DIR or --lmms NAME=DIR")
    scenarios = load_by_id(arguments.scenarios)
    models: list[Results] = [load_results(name, folder, scenarios) for name, folder in folders.items()]
    for name, folder in harness.items():
        _add(load_results(name, folder), models)
    for one in models if not scenarios else []:
        scenarios |= scenarios_of(one.record)
    first = next(iter(folders.values()), None)
    baselines = [] if arguments.no_baselines or first is None else baselines_in(first, scenarios)
    keeps, margins = margins_of(arguments)
    return ReportRequest(
        models=models,
        baselines=baselines,
        scenarios=scenarios,
        statistics=statistics,
        pairs=None if arguments.compare is None else [(a, b) for a, b in arguments.compare],
        keeps=keeps,
        margins=margins,
        timelines=arguments.timelines,
    )


def _add(found: Results, models: list[Results]) -> None:
    """What lmms-eval logged belongs to the model of that name, if there is one."""
    for model in models:
        if model.name == found.name:
            model.items += found.items
            model.record.fingerprints |= found.record.fingerprints
            model.totals |= found.totals
            model.notes += found.notes
            return
    models.append(found)


def _named_folders(option: str, values: list[str]) -> dict[str, Path]:
    """NAME=DIR by name; a folder alone is called by its own name."""
    found: dict[str, Path] = {}
    for value in values:
        name, separator, path = value.partition("=")
        if not separator:
            name, path = Path(value).resolve().name, value
        if not name or not path:
            raise InputError(f"{option} {value!r} is not of the form NAME=DIR")
        if name in found:
            raise InputError(f"{option} names {name!r} twice; give each evaluation another name")
        found[name] = Path(path)
    return found
