"""What the actions of `moss plan` have in common: the cluster, and where samples come from."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from model.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from moss_train.config.schema import RunConfig
    from moss_train.planning.data_items import DataItem
    from moss_train.planning.expected import ExpectedPack
    from moss_train.planning.hardware import Cluster

    Stream = Callable[[int], Iterator[DataItem]]


DEFAULT_GPU = "H200"
WIDTH = 130
"""Columns of output that goes to a file."""


def wide_console() -> Console:
    """A console whose tables are not squeezed where the output is no terminal."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH)


def add_cluster_arguments(parser: argparse.ArgumentParser) -> None:
    """What the run shall run on, and what it reads."""
    parser.add_argument("--gpu", help="A100 | H100 | H200, with 80, 80 and 141 GB (default: launcher.gpu, else H200)")
    parser.add_argument("--price", type=float, metavar="USD", help="of a GPU-hour, for the cost")
    parser.add_argument(
        "--network-gbps", type=float, default=400.0, help="network of each GPU between nodes of eight (default: 400)"
    )
    parser.add_argument("--steps", type=int, help="steps of the run (default: train.steps)")
    parser.add_argument("--samples", type=int, help="samples of the run, in place of --steps")
    parser.add_argument(
        "--data", action="store_true", help="plan with the samples of data.datasets instead of the published workload"
    )
    parser.add_argument("--source", default="1920x1080@30", help="videos of the workload (default: 1920x1080@30)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def cluster_of(args: argparse.Namespace, config: RunConfig) -> Cluster:
    """The cluster that the arguments describe.

    Raises:
        InputError: a GPU that is not known, or a number without a meaning.
    """
    from moss_train.planning.hardware import Cluster

    for name in ("steps", "samples"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} is {value}; it must be at least 1")
    if args.steps is not None and args.samples is not None:
        raise InputError("--steps and --samples are both given; each says how long the run is: give one of them")
    return Cluster.of(args.gpu or config.launcher.gpu or DEFAULT_GPU, args.network_gbps, args.price)


def samples_of(args: argparse.Namespace, config: RunConfig) -> tuple[ExpectedPack, Stream | None]:
    """The average pack, and the samples that it is of; None where none are known.

    Raises:
        InputError: data that cannot be read.
    """
    from moss_train.planning.data_items import SourceVideo
    from moss_train.planning.expected import expected_pack, workload_stream

    if args.data:
        stream, source = _folders(config)
        return expected_pack(config, stream, source), stream
    known = workload_stream(config, SourceVideo.parse(args.source))
    return expected_pack(config, known, f"the published workload, videos of {args.source}"), known


def _folders(config: RunConfig) -> tuple[Stream, str]:
    from pathlib import Path

    from data_pipeline.text.tokenizer import Tokenizer
    from moss_train.planning.data_items import check_local, folder_items

    check_local(config.data)
    tokenizer = Tokenizer.from_file(Path(config.data.root) / config.data.tokenizer)
    items = folder_items(config.data, config.stage, tokenizer, SAMPLES)
    return items.stream, f"{items.count} samples of {len(items.items)} datasets"


SAMPLES = 2000
"""Read of each dataset."""


def steps_of(args: argparse.Namespace, config: RunConfig, pack: ExpectedPack) -> int:
    """Steps of the run."""
    if args.samples is not None:
        return pack.steps(args.samples, config.train.global_batch_size)
    steps: int | None = args.steps
    return config.train.steps if steps is None else steps
