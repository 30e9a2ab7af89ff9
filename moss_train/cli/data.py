"""`moss data`: import annotations, write shards, look into them, make a tokenizer, render the world."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from model.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One sub-parser for each action."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text, example, arguments in (
        ("import", "Turn share-GPT JSON into an annotation file", "moss data import sft.json sft.jsonl", _import_arguments),
        ("prepare", "Write the shards of an annotation file", "moss data prepare sft.jsonl shards/sft", _prepare_arguments),
        ("info", "Describe a folder of shards", "moss data info shards/sft --check", _info_arguments),
        (
            "tokenizer",
            "Train a small tokenizer, or build Llama 3's",
            "moss data tokenizer t.json shards/sft",
            _tokenizer_arguments,
        ),
        ("world", "Render the synthetic video world", "moss data world shards/world --split train", _world_arguments),
    ):
        action = actions.add_parser(name, help=text, description=f"{text}.", epilog=f"example: {example}")
        arguments(action)


def run(args: argparse.Namespace) -> int:
    """Run the chosen action."""
    actions: dict[str, Callable[[argparse.Namespace], int]] = {
        "import": _run_import,
        "prepare": _run_prepare,
        "info": _run_info,
        "tokenizer": _run_tokenizer,
        "world": _run_world,
    }
    return actions[args.action](args)


def _import_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="JSON list of rows, or a registry (dataset_info.json) together with --name")
    parser.add_argument("out", help="annotation file to write, one sample a line")
    parser.add_argument("--name", help="entry of the registry")
    parser.add_argument("--media-root", help="folder of relative media paths (default: the folder of the JSON file)")
    parser.add_argument("--template", default="mllama", help="mllama (chat) or mllama_pretrain (default: mllama)")
    parser.add_argument("--license", default="", help="licence of all samples, kept in the shards")
    parser.add_argument("--keep-missing", action="store_true", help="keep rows whose media files are not there yet")


def _run_import(args: argparse.Namespace) -> int:
    from data_pipeline.shards.annotations import write_annotations
    from data_pipeline.shards.sharegpt import import_sharegpt
    from data_pipeline.text.template import check_template

    check_template(args.template)
    annotations, report = import_sharegpt(
        args.source,
        name=args.name,
        media_root=args.media_root,
        template=args.template,
        license=args.license,
        keep_missing=args.keep_missing,
    )
    write_annotations(args.out, annotations)
    report_path = Path(f"{args.out}.report.json")
    temporary = report_path.with_name(f".{report_path.name}.tmp")
    temporary.write_text(json.dumps(report.to_dict(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    temporary.replace(report_path)
    print(f"{report.kept} of {report.rows} rows kept in {args.out}")
    for reason, count in report.dropped.most_common():
        print(f"  dropped {count}: {reason}, such as {report.examples[reason][0]}")
    if report.dropped:
        print(f"  details in {report_path}")
    return 0


def _prepare_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("annotations", help="annotation file of `moss data import`")
    parser.add_argument("out", help="folder to write")
    parser.add_argument("--samples-per-shard", type=int, default=1000, help="samples in one tar (default: 1000)")
    parser.add_argument("--seed", type=int, help="shuffle the samples with this seed (default: keep their order)")
    parser.add_argument("--overwrite", action="store_true", help="replace the folder if it exists")


def _run_prepare(args: argparse.Namespace) -> int:
    from data_pipeline.shards.prepare import prepare

    with _progress("writing shards") as advance:
        summary = prepare(
            args.annotations,
            args.out,
            samples_per_shard=args.samples_per_shard,
            shuffle_seed=args.seed,
            overwrite=args.overwrite,
            on_sample=advance,
        )
    print(f"{args.out}: {_one_line(summary)}")
    return 0


def _info_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", help="folder of shards")
    parser.add_argument("--check", action="store_true", help="compare every shard with the digest noted when it was written")
    parser.add_argument("--show", type=int, default=0, metavar="N", help="print the first N samples")


def _run_info(args: argparse.Namespace) -> int:
    from data_pipeline.shards.info import check_shards, read_samples, read_summary
    from data_pipeline.shards.schema import sample_to_dict

    summary = read_summary(args.folder)
    print(f"{args.folder}: {_one_line(summary)}")
    for field in ("kinds", "media", "licenses", "sources"):
        print(f"  {field}: " + ", ".join(f"{name or '(none)'} {count}" for name, count in summary[field].items()))
    if args.show > 0:
        for number, (key, sample) in enumerate(read_samples(args.folder)):
            if number >= args.show:
                break
            print(f"  {key}: " + json.dumps(sample_to_dict(sample), ensure_ascii=False))
    if args.check:
        faults = check_shards(args.folder)
        if faults:
            raise InputError(f"{'; '.join(faults)}; write the folder again with `moss data prepare --overwrite`")
        print(f"  all {len(summary['shards'])} shards are as written")
    return 0


def _tokenizer_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", help="tokenizer.json to write")
    parser.add_argument("texts", nargs="*", help="folders of shards, annotation files (.jsonl) or text files to train on")
    parser.add_argument("--vocab-size", type=int, default=1000, help="rows of the model's head (default: 1000)")
    parser.add_argument(
        "--llama",
        nargs="?",
        const="",
        metavar="TOKENIZER_MODEL",
        help="build Llama 3's instead, from its tokenizer.model or the installed package llama-models",
    )


def _run_tokenizer(args: argparse.Namespace) -> int:
    if args.llama is not None:
        from data_pipeline.text.llama_tokenizer import build_llama_tokenizer

        tokenizer = build_llama_tokenizer(args.llama or None)
    else:
        from data_pipeline.shards.corpus import corpus_texts
        from data_pipeline.text.demo_tokenizer import train_demo_tokenizer

        if not args.texts:
            raise InputError("no texts were given to train the tokenizer on; name folders of shards or text files")
        tokenizer = train_demo_tokenizer(corpus_texts(args.texts), args.vocab_size)
    tokenizer.save(args.out)
    print(f"{args.out}: {tokenizer.vocab_size} entries with a row in the head, <|image|> = {tokenizer.image_id}")
    return 0


def _world_arguments(parser: argparse.ArgumentParser) -> None:
    from data_pipeline.world import cli

    cli.add_arguments(parser)


def _run_world(args: argparse.Namespace) -> int:
    from data_pipeline.world import cli

    return cli.run(args)


def _one_line(summary: dict[str, Any]) -> str:
    return (
        f"{summary['samples']} samples in {len(summary['shards'])} shards, {summary['video_seconds']:.0f} s of video, "
        f"{summary['media_bytes'] / 1e6:.1f} MB of media"
    )


@contextmanager
def _progress(text: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on the terminal; yields a function of (done, total)."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task(text, total=None)

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield advance
