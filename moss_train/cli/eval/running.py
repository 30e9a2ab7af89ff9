"""`moss eval`: stream and question a checkpoint on scenarios, score it, and score the baselines beside it."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from inference.evaluation.judge.open import add_judge_arguments

    parser.add_argument(
        "scenarios",
        type=Path,
        nargs="+",
        help="JSON-lines files of scenarios, scored as one set; each names its videos relative to itself",
    )
    parser.add_argument(
        "--checkpoint",
        required=True,
        help=(
            "folder in Hugging Face layout with its tokenizer.json, a hub id, or a run: RUN (its newest checkpoint), RUN@best or "
            "a checkpoint folder, which is converted into OUT/checkpoint first"
        ),
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for traces.jsonl, scores.json, and one per baseline")
    parser.add_argument(
        "--untrained-baseline", action="store_true", help="also run the architecture with untrained weights, into OUT/untrained"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each (default 1)")
    parser.add_argument("--together", type=int, default=16, help="scenarios that one pass of the model serves (default 16)")
    parser.add_argument(
        "--modes",
        nargs="+",
        default=[],
        metavar="MODE",
        help="of push, offline, poll, teacher (default: push, offline and poll, where a scenario has something for them)",
    )
    parser.add_argument(
        "--context-seconds", type=float, help="clips of questions and polls reach back so far (default: to the start)"
    )
    parser.add_argument("--max-frames", type=int, help="most frames of such a clip, evenly spaced (default: no limit)")
    parser.add_argument(
        "--clock",
        default="virtual",
        choices=("virtual", "wall"),
        help="virtual (default): streams run as fast as they can, with exact times; wall: in real time, one after the other",
    )
    parser.add_argument(
        "--latency-profile",
        metavar="FILE",
        help="on the virtual clock computing takes the times that `moss bench latency` measured on some machine",
    )
    parser.add_argument("--strict", action="store_true", help="end at the first scenario that cannot be run")
    parser.add_argument("--limit", type=int, help="only the first so many scenarios of each file")
    parser.add_argument(
        "--tokens-per-frame",
        type=int,
        default=16,
        help="tokens that the model can say between two frames (default 16); 0: as many as the clock leaves time for",
    )
    parser.add_argument("--max-answer-tokens", type=int, default=32, help="an answer is cut there (default 32)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N or auto (default cpu)")
    parser.add_argument("--dtype", default="fp32", choices=("fp32", "bf16", "fp16"), help="of weights and caches (default fp32)")
    parser.add_argument("--precision", help="the decoder's weights in fp8 or fp8_self (default: all in --dtype)")
    add_judge_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate and print the scores side by side."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from inference.checkpoint import check_device, dtype_of, resolve_checkpoint
    from inference.evaluation.evaluate import EvaluationRequest, evaluate
    from inference.evaluation.judge.open import judge_from
    from inference.evaluation.running.settings import RunSettings
    from inference.quantize import recipe_of
    from model.errors import InputError

    for name in ("max_answer_tokens", "workers", "together"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(args, name)}; it must be at least 1")
    if args.tokens_per_frame < 0:
        raise InputError(f"--tokens-per-frame is {args.tokens_per_frame}; it must be 0 or more")
    if args.limit is not None and args.limit < 1:
        raise InputError(f"--limit is {args.limit}; it must be at least 1")
    precision = recipe_of(args.precision or "bf16").name
    judge = judge_from(args, args.out)
    request = EvaluationRequest(
        scenarios=args.scenarios,
        checkpoint=_of_run(args.checkpoint, args.out, args.scenarios) or resolve_checkpoint(args.checkpoint),
        out=args.out,
        settings=RunSettings(
            tokens_per_frame=args.tokens_per_frame or None,
            clock=args.clock,
            latency_profile=args.latency_profile,
            max_answer_tokens=args.max_answer_tokens,
            modes=tuple(args.modes),
            context_seconds=args.context_seconds,
            max_frames=args.max_frames,
        ),
        workers=args.workers,
        together=args.together,
        device=check_device(args.device),
        dtype=dtype_of(args.dtype),
        precision=precision,
        limit=args.limit,
        untrained_baseline=args.untrained_baseline,
        strict=args.strict,
        judge=judge,
        command=sys.argv,
    )
    if request.device == "cpu":
        import torch

        torch.set_num_threads(1)  # small steps do not gain from threads; use --workers
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks: dict[str, Any] = {}

        def show(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=total)
            progress.update(tasks[name], completed=done, total=total)

        if judge is not None:
            judge.on_done = functools.partial(show, "judge")
        evaluated = evaluate(request, show)
    _print_table(evaluated.scores)
    for scenario, why in evaluated.failed.items():
        print(f"moss: scenario {scenario} was not run to its end: {why}", file=sys.stderr)
    print(args.out / "scores.json")
    return 1 if evaluated.failed else 0


def _of_run(name: str, out: Path, scenarios: Sequence[Path]) -> Path | None:
    """The weights of a run in Hugging Face layout; None where the name means no run."""
    from moss_train.checkpoint.description import BEST, DESCRIPTION

    folder = Path(name)
    is_run = (folder / DESCRIPTION).is_file() or ((folder / "checkpoints").is_dir() and not (folder / "config.json").is_file())
    if not is_run and (folder.exists() or not name.endswith(f"@{BEST}")):
        return None
    from inference.evaluation.storage import check_folder, load_scenario_files
    from moss_train.convert.to_hf import checkpoint_to_hf

    load_scenario_files(scenarios)  # before a conversion that may take minutes
    check_folder(out)
    return checkpoint_to_hf(folder, out / "checkpoint")[1]


def _print_table(results: dict[str, dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    kinds = sorted({kind for scores in results.values() for kind in scores["qa"]})
    rows = [("qa", kind) for kind in kinds]
    if any("speak" in scores for scores in results.values()):
        rows += [("speak", name) for name in ("precision", "recall", "f1", "sentence_accuracy", "onset_error_median")]
        rows += [("speak", name) for name in ("onset_error_median_frames", "false_per_minute", "balanced_accuracy")]
        rows += [("speak_within_one", "f1"), ("silence", "f1")]
        sections = [section for section in ("correction", "waiting") if _any_spans(results, section)]
        rows += [(section, name) for section in sections for name in ("in_time", "in_time_right_words")]
        rows += [("waiting", "early_per_scenario")] if "waiting" in sections else []
    table = Table()
    table.add_column("score", min_width=max(len(f"{section}.{name}") for section, name in rows) if rows else None)
    for model in results:
        table.add_column(model, overflow="fold")  # names of many models do not fit side by side
    for suite in _suites(results):
        names = {name for scores in results.values() for name in scores["suites"].get(suite, {})}
        for name in sorted(names):
            values = [scores["suites"].get(suite, {}).get(name) for scores in results.values()]
            table.add_row(f"{suite}: {name}", *("-" if value is None else f"{value:.3f}" for value in values))
    for section, name in rows:
        values = [scores.get(section, {}).get(name) for scores in results.values()]
        table.add_row(f"{section}.{name}", *("-" if value is None else f"{value:.3f}" for value in values))
    # A file or pipe has no width: no column is cut off there.
    Console(width=None if Console().is_terminal else 200).print(table)


def _suites(results: dict[str, dict[str, Any]]) -> list[str]:
    """Benchmarks among the scenarios; what the table shows anyway, and how fast the streams were, is in the report."""
    names = dict.fromkeys(name for scores in results.values() for name in scores["suites"])
    return [name for name in names if name not in ("world", "system")]


def _any_spans(results: dict[str, dict[str, Any]], section: str) -> bool:
    """Whether the truth holds anything that a section scores."""
    return any(scores.get(section, {}).get("spans") for scores in results.values())
