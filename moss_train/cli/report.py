"""`moss report`: the page of a run folder, or one of loss curves, scores and frame strips of runs and evaluations."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from model.errors import InputError

EXAMPLE = (
    "moss report runs/pt2, or moss report --out report.html --run pt1=runs/pt1 --run sft_realtime=runs/sft_realtime "
    "--eval trained=eval/trained --eval untrained=eval/untrained"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", nargs="?", type=Path, metavar="RUN", help="a run folder, whose page is RUN/report.html")
    parser.add_argument("--out", type=Path, help="the page to write; needed without RUN, then the numbers go beside it as .json")
    parser.add_argument(
        "--run", action="append", default=[], metavar="STAGE=RUN_DIR", help="a training run, in order (repeatable)"
    )
    parser.add_argument(
        "--eval",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="a folder written by `moss eval`; the first is the main one",
    )
    parser.add_argument(
        "--ablation",
        action="append",
        default=[],
        metavar="LABEL=NAME",
        help="an evaluation to be set against the first one, and what it was trained without (repeatable)",
    )
    parser.add_argument(
        "--scenarios",
        type=Path,
        nargs="+",
        default=[],
        help="what the evaluations ran, for frame strips and answers",
    )
    parser.add_argument("--strips", type=int, default=6, help="how many clips to show frame by frame (default 6)")
    parser.add_argument("--extra", action="append", default=[], metavar="SCENARIOS=DIR", help="clips without truth to show too")
    parser.add_argument("--commands", type=Path, help="text file with the commands to print at the end of the page")
    parser.add_argument("--title", default="moss-train report")
    parser.add_argument("--intro", default="", help="paragraph under the title")
    parser.add_argument("--note", default="", help="paragraph under the scores")


def _pairs(option: str, values: list[str]) -> dict[str, Path]:
    pairs = {}
    for value in values:
        name, separator, path = value.partition("=")
        if not separator or not name or not path:
            raise InputError(f"{option} {value!r} is not of the form NAME=PATH")
        pairs[name] = Path(path)
    return pairs


def _read_scenarios(path: Path) -> list[dict[str, Any]]:
    from moss_train.report.collect import read_json_lines

    return read_json_lines(path)


def _answers(scenarios: list[dict[str, Any]], folders: dict[str, Path], limit: int) -> list[dict[str, Any]]:
    """Rows of the question table: question, truth and each model's reply."""
    from moss_train.report.collect import read_json_lines

    replies: list[dict[str, list[str]]] = []
    for folder in folders.values():
        rows = read_json_lines(folder / "traces.jsonl")
        replies.append({row["scenario_id"]: row["answers"] for row in rows if row["mode"] == "offline"})
    table: list[dict[str, Any]] = []
    for scenario in scenarios:
        for index, question in enumerate(scenario.get("questions", [])):
            row = [reply.get(scenario["id"], []) for reply in replies]
            if len(table) < limit and any(len(texts) > index for texts in row):
                texts = [texts[index] if len(texts) > index else "" for texts in row]
                table.append(
                    {"clip": scenario["id"], "question": question["text"], "truth": question["answer"], "replies": texts}
                )
    return table


def _run_page(args: argparse.Namespace) -> int:
    """The page of one run folder."""
    from moss_train.report.run_page import write_run_report

    if args.run or args.eval:
        raise InputError(f"{args.run_folder} gets a page of its own; leave out --run and --eval, or give it as --run NAME=RUN")
    print(write_run_report(args.run_folder, args.out))
    return 0


def run(args: argparse.Namespace) -> int:
    """Collect, draw, write; prints the page's path."""
    from moss_train.report.collect import read_curve, read_json_lines, read_scores
    from moss_train.report.render import ReportContent, write_report
    from moss_train.report.strips import build_strip

    if args.run_folder is None and args.out is None:
        raise InputError("nothing to report: give a run folder, or --out PAGE.html with --run STAGE=RUN_DIR or --eval NAME=DIR")
    if args.out is not None and (args.out.suffix not in (".html", ".htm") or args.out.is_dir()):
        raise InputError(f"--out {args.out} is not the name of a page; give a file that ends in .html")
    if args.run_folder is not None:
        return _run_page(args)
    ablations = {label: str(name) for label, name in _pairs("--ablation", args.ablation).items()}
    runs, evaluations, extra = _pairs("--run", args.run), _pairs("--eval", args.eval), _pairs("--extra", args.extra)
    if not evaluations and not runs:
        raise InputError("nothing to report: give at least one --run STAGE=RUN_DIR or --eval NAME=DIR")
    scores = {name: read_scores(name, folder) for name, folder in evaluations.items()}
    strips, answers = [], []
    if args.scenarios and evaluations:
        scenarios = [(path.parent, scenario) for path in args.scenarios for scenario in _read_scenarios(path)]
        main = next(iter(evaluations.values()))
        traces = {row["scenario_id"]: row for row in read_json_lines(main / "traces.jsonl") if row["mode"] == "push"}
        shown = [(folder, scenario) for folder, scenario in scenarios if scenario["id"] in traces][: args.strips]
        strips = [build_strip(scenario, traces[scenario["id"]], folder) for folder, scenario in shown]
        answers = _answers([scenario for _, scenario in scenarios], evaluations, 24)
    for path_text, folder in extra.items():
        path = Path(path_text)
        traces = {row["scenario_id"]: row for row in read_json_lines(folder / "traces.jsonl") if row["mode"] == "push"}
        for scenario in _read_scenarios(path):
            if scenario["id"] in traces:
                strips.append(build_strip(scenario, traces[scenario["id"]], path.parent, with_truth=False))
    content = ReportContent(
        title=args.title,
        intro=args.intro,
        score_note=args.note,
        curves=[read_curve(name, folder) for name, folder in runs.items()],
        scores=scores,
        strips=strips,
        answers=answers,
        answer_models=list(evaluations),
        commands=args.commands.read_text(encoding="utf-8").splitlines() if args.commands else [],
        ablations=ablations,
    )
    write_report(args.out, content)
    print(args.out)
    return 0
