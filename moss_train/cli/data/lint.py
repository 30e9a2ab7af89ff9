"""`moss data lint`."""

from __future__ import annotations

import argparse
import json
from contextlib import nullcontext
from typing import TYPE_CHECKING

from model.errors import InputError
from moss_train.cli.data.shared import progress
from moss_train.cli.data.stage_choice import add_stage_arguments, config_of, tokenizer_file

if TYPE_CHECKING:
    from data_pipeline.inspect.lint.lint import LintSettings
    from data_pipeline.inspect.lint.report import LintReport

EXIT_ERRORS = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the action."""
    parser.add_argument("sources", nargs="+", help="folders of shards, single shards, or annotation files")
    add_stage_arguments(parser, None)
    parser.add_argument("--decode", action="store_true", help="decode every media file to its end")
    parser.add_argument("--realtime", action="store_true", help="timed dialogues: frames, grammar, own rules of generated ones")
    parser.add_argument("--workers", type=int, default=1, help="processes, a shard each at a time (default: 1)")
    parser.add_argument("--examples", type=int, default=5, help="examples shown of each rule (default: 5)")
    parser.add_argument("--max-errors", type=int, metavar="N", help="stop behind the shard with the N-th error")
    parser.add_argument("--json", action="store_true", help="print the whole report as JSON")


def run(args: argparse.Namespace) -> int:
    """Run it; ends with 1 where there is an error."""
    from data_pipeline.inspect.lint.lint import lint

    for name, value, least in (("workers", args.workers, 1), ("examples", args.examples, 0), ("max-errors", args.max_errors, 1)):
        if value is not None and value < least:
            raise InputError(f"--{name} is {value}; it must be at least {least}")
    settings = _settings(args)
    with nullcontext(None) if args.json else progress("checking") as advance:
        report = lint(args.sources, settings, workers=args.workers, max_errors=args.max_errors, on_part=advance)
    if args.json:
        print(json.dumps(report.to_dict(), ensure_ascii=False, indent=1))
    else:
        _print(report)
    return EXIT_ERRORS if report.failed else 0


def _settings(args: argparse.Namespace) -> LintSettings:
    from data_pipeline.inspect.lint.lint import LintSettings
    from data_pipeline.loader.plan_rules import plan_rules

    config = config_of(args)
    if config is None:
        return LintSettings(decode=args.decode, realtime=args.realtime, examples=args.examples)
    return LintSettings(
        rules=plan_rules(config.stage),
        tokenizer=tokenizer_file(args, config),
        decode=args.decode,
        realtime=args.realtime,
        examples=args.examples,
    )


def _print(report: LintReport) -> None:
    from data_pipeline.inspect.lint.rules import RULES

    for name in report.rules():
        rule, count = RULES[name], report.counts[name]
        share = f" ({count / report.samples:.1%} of samples)" if report.samples else ""
        print(f"{rule.severity} {name}: {count}{share}: {rule.what}; {rule.remedy}")
        for example in report.examples[name]:
            print(f"  {example.where}{f' sample {example.key}' if example.key else ''}: {example.text}")
    print(report.summary())
