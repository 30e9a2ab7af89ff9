"""`moss data world`: render the synthetic world into shards, scenarios and the texts of its vocabulary."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from data_pipeline.world.seeds import SPLITS, TASKS

CORPUS_SIZE = 1000
"""Stories and dialogues from which the tokenizer is trained."""

ABOUT = {
    "dense": "samples of 8 frames with patch labels",
    "text": "texts without pictures",
    "cap": "samples of 4 captioned pictures",
    "trk": "narrated 8-frame videos",
    "qa": "8-frame videos with three questions each",
    "rt": "16-frame videos with a real-time dialogue",
    "ask": "held-out scenarios with questions",
    "stream": "held-out scenarios to be streamed",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for <split>/<task>/ shards and <split>/scenarios.jsonl")
    parser.add_argument("--split", default="train", choices=SPLITS, help="whose seeds to draw from (default train)")
    for task in TASKS:
        parser.add_argument(f"--{task}", type=int, default=0, metavar="N", help=f"{ABOUT[task]} (default 0)")
    parser.add_argument("--real", action="store_true", help="also write the bundled real clips and stills as <split>/real_*")
    parser.add_argument(
        "--tokenizer", type=int, default=0, metavar="N", help="also train OUT/tokenizer.json with N head rows, such as 1000"
    )
    parser.add_argument("--seed", type=int, default=0, help="which of the ten worlds, 0..9 (default 0)")
    parser.add_argument("--workers", type=int, default=1, help="processes (default 1); the files do not depend on it")
    parser.add_argument("--samples-per-shard", type=int, default=500, help="samples in one tar (default 500)")
    parser.add_argument("--overwrite", action="store_true", help="replace folders that are there")


def run(args: argparse.Namespace) -> int:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from data_pipeline.assets.real import write_real
    from data_pipeline.world.generate import write_world

    begin = time.monotonic()
    counts = {task: getattr(args, task) for task in TASKS}
    columns = (TextColumn("{task.description:>8}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    summary = {}
    if args.tokenizer:
        _write_tokenizer(args.out / "tokenizer.json", args.tokenizer)
    if any(counts.values()) or not (args.real or args.tokenizer):
        with Progress(*columns) as bar:
            rows = {task: bar.add_task(task, total=count) for task, count in counts.items() if count}
            summary = write_world(
                args.out,
                args.split,
                counts,
                seed=args.seed,
                workers=args.workers,
                samples_per_shard=args.samples_per_shard,
                overwrite=args.overwrite,
                progress=lambda task, done, _: bar.update(rows[task], completed=done),
            )
    if args.real:
        summary |= write_real(args.out / args.split, args.split, overwrite=args.overwrite)
    for name, content in summary.items():
        what = f"{content['samples']} samples" if "samples" in content else f"{content['scenarios']} scenarios"
        print(f"{args.out / args.split / name}: {what}")
    print(f"written in {time.monotonic() - begin:.1f} s")
    return 0


def _write_tokenizer(path: Path, vocab_size: int) -> None:
    """Every word of the world, of the real captions and of the chat headers becomes one token."""
    from data_pipeline.text.demo_tokenizer import train_demo_tokenizer
    from data_pipeline.world.tasks.text import corpus

    path.parent.mkdir(parents=True, exist_ok=True)
    train_demo_tokenizer(corpus(0, CORPUS_SIZE), vocab_size).save(path)
    print(f"{path}: {vocab_size} rows in the head")
