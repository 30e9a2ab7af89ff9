"""`moss`: the table of sub-commands. Only the module of the chosen one is imported."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich_argparse import RawDescriptionRichHelpFormatter

from model.errors import InputError, file_trouble

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


@dataclass(frozen=True)
class Command:
    """A row of the table: where a sub-command lives and what its help says."""

    module: str
    help: str
    example: str


COMMANDS: dict[str, Command] = {
    "train": Command(
        "moss_train.cli.train",
        "Train one stage",
        "moss train stage=pt2 parallel=tp2 data.root=shards train.init_from=runs/pt1 run_dir=runs/pt2 --nproc-per-node 2",
    ),
    "data": Command(
        "moss_train.cli.data",
        "Import annotations; write, check and show shards; plan their loading; make tokenizers; render the synthetic world",
        "moss data prepare annotations.jsonl shards/my_videos",
    ),
    "convert": Command(
        "moss_train.cli.convert",
        "Convert between a training checkpoint and the Hugging Face layout",
        "moss convert to-hf runs/sft_realtime hf/realtime",
    ),
    "verify": Command(
        "moss_train.cli.verify",
        "Check layouts, recorded quantities of the reference, and modules against each other",
        "moss verify layouts --layout tp2.sp --layout pp2",
    ),
    "stream": Command(
        "moss_train.cli.stream",
        "Watch a file, a camera or an address live with a real-time checkpoint",
        "moss stream --checkpoint hf/realtime --source clip.mp4 --fps 2 --prompt 'What happens?'",
    ),
    "eval": Command(
        "moss_train.cli.eval",
        "Stream and question a checkpoint on scenarios and score it",
        "moss eval scenarios.jsonl --checkpoint hf/realtime --out eval/realtime",
    ),
    "replay": Command(
        "moss_train.cli.replay",
        "Rebuild the global batch of any step of a run: keys, frames, packing, text with loss mask, loss by token",
        "moss replay runs/pt2 step=120 --loss --out replay/step_120",
    ),
    "report": Command(
        "moss_train.cli.report",
        "Write the page of a run folder, or one of loss curves, scores and frame strips",
        "moss report runs/pt2",
    ),
    "wandb": Command(
        "moss_train.cli.wandb",
        "Lay out a W&B workspace for the metrics of a run",
        "moss wandb dashboard runs/pt2 --dry-run",
    ),
    "plan": Command(
        "moss_train.cli.plan",
        "Predict memory, time, cost and the cheapest layout of a run from its configuration alone",
        "moss plan stage=pt2 parallel=tp8 --ranks 64 --gpu H100",
    ),
    "bench": Command(
        "moss_train.cli.bench",
        "Measure a part on this machine and write the numbers with hardware and versions",
        "moss bench cross-attention --out cross-attention.json",
    ),
    "launch": Command(
        "moss_train.cli.launch",
        "Start a training run with torchrun or as a Slurm job",
        "moss launch slurm stage=pt2 model=11b parallel=tp8 run_dir=runs/pt2 --dry-run",
    ),
    "preflight": Command(
        "moss_train.cli.preflight",
        "Check this machine, or all nodes of a run together, before training starts",
        "moss preflight --config runs/pt2/launch/config.yaml --nodes 2 --node-rank 0 --master gpu-01:29500",
    ),
    "demo": Command(
        "moss_train.cli.demo",
        "Make data, train all stages of the small model, stream held-out clips, write a report",
        "moss demo --out runs/demo",
    ),
}


class MossParser(argparse.ArgumentParser):
    """A parser whose help, and that of its sub-parsers, is formatted by rich and keeps the lines of descriptions."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", RawDescriptionRichHelpFormatter)
        super().__init__(*args, **kwargs)


def _overview() -> MossParser:
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:<{width}}  {row.help}" for name, row in COMMANDS.items())
    parser = MossParser(
        prog="moss",
        description="Train, convert and stream VideoMllama.\n\nCommands:\n" + rows,
        epilog="moss COMMAND --help shows the arguments of a command and an example.",
    )
    parser.add_argument("command", choices=list(COMMANDS), metavar="COMMAND", help="one of the commands above")
    parser.add_argument("--version", action="version", version=f"moss-train {_version()}")
    return parser


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("moss-train")
    except PackageNotFoundError:
        return "(not installed)"


def _command_parser(name: str) -> tuple[MossParser, Any]:
    row = COMMANDS[name]
    module = importlib.import_module(row.module)
    parser = MossParser(prog=f"moss {name}", description=f"{row.help}.", epilog=f"example: {row.example}")
    module.add_arguments(parser)
    return parser, module


def parse_words(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """Options may stand before, between and behind values: `moss train stage=pt1 --print-config train.steps=3`."""
    try:
        return parser.parse_intermixed_args(words)
    except TypeError:  # argparse's answer where there are sub-commands, before it has read anything
        arguments, rest = parser.parse_known_args(words)
        overrides = [word for word in rest if "=" in word and not word.startswith("-")]
        if rest and (overrides != rest or not hasattr(arguments, "overrides")):
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        arguments.overrides = [*getattr(arguments, "overrides", []), *rest]
        return arguments


def _who() -> str:
    """Names the rank where several processes write to one terminal."""
    return f"moss [rank {os.environ.get('RANK', '0')}]" if int(os.environ.get("WORLD_SIZE", "1")) > 1 else "moss"


def main(argv: Sequence[str] | None = None) -> int:
    """Run `moss ARGV`.

    Returns:
        The exit code: 0 done, 2 bad input (one sentence on stderr), 130 interrupted, or what the command returns.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments:
        _overview().print_help()
        return EXIT_BAD_INPUT
    if arguments[0] not in COMMANDS:
        _overview().parse_args(arguments[:1])  # --help, --version, or argparse's own sentence about the unknown command
    try:
        parser, module = _command_parser(arguments[0])
        words = getattr(module, "complete", list)(arguments[1:])  # a command may have an action that needs no name
        return int(module.run(parse_words(parser, words)) or 0)
    except InputError as error:
        print(f"{_who()}: error: {error}", file=sys.stderr, flush=True)
        return EXIT_BAD_INPUT
    except OSError as error:
        trouble = file_trouble(error)
        if trouble is None:
            raise
        print(f"{_who()}: error: {trouble}", file=sys.stderr, flush=True)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print(f"{_who()}: interrupted", file=sys.stderr, flush=True)
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
