"""`moss bench train`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.errors import InputError
from moss_train.cli.bench.shared import file_to_write, positive, print_markdown, show_tables, surroundings

if TYPE_CHECKING:
    from moss_train.bench.train.cases import Options

VERSIONS = (
    "torch", "triton", "megatron-core", "transformer-engine", "transformer-engine-cu13", "transformer-engine-cu12", "flash-attn",
    "flash-attn-4", "nvidia-cudnn-cu13", "nvidia-cudnn-cu12", "nvidia-cublas", "liger-kernel", "deepspeed",
    "megatron-energon", "av",
)  # fmt: skip
"""Packages whose versions are written beside the numbers."""
EXAMPLES = """examples:
  moss bench train --out train.json           0 to 256 frames in 4,096 rows, bf16 and fp8, the text cut to 10 layers
  moss bench train --stages pt2,sft_realtime,sft_offline,pt1 --rows 1024,4096,8192 --case-seconds 4 --limit-seconds 300
  moss bench train --optimizer compact --text-layers 40 --recompute full --frames 64 --precision bf16
  moss bench train --frames 64 --profile vision.again_chunk_frames=16 --out profile.json
  moss bench train --make-data /tmp/clips; moss bench train --data /tmp/clips --frames 64 data.worker_processes=8
  moss bench train --table train.json         the tables of a file, as Markdown"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to measure."""
    parser.epilog = EXAMPLES
    many = "separated by commas (default %(default)s)"
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="further values of the run's config, as of `moss train`"
    )
    parser.add_argument("--stages", default="pt2", help=f"pt1, pt2, sft_offline, sft_realtime; {many}")
    parser.add_argument("--frames", default="0,8,64,256", help=f"frames of a pack; {many}")
    parser.add_argument("--rows", default="4096", help=f"rows of a pack, frames included; {many}")
    parser.add_argument("--precision", default="bf16,fp8", help=f"bf16, fp8 (decoder and tower) or fp32; {many}")
    parser.add_argument("--model", default="11b", help="of conf/model (default %(default)s)")
    parser.add_argument(
        "--text-layers", default=None,
        help="decoder layers; cross layers keep their places (default: 10 with cross at 3 and 8, of smaller models all)",
    )  # fmt: skip
    parser.add_argument("--tower-layers", default=None, help="layers of the tower, local and global (default all)")
    parser.add_argument("--optimizer", default="none", help="none (default: forward and backward alone), adamw, or compact")
    parser.add_argument("--micro-batches", default="1", help="packs of a step (default %(default)s)")
    parser.add_argument("--recompute", default="none", help="none (default) or full: of the decoder's layers")
    parser.add_argument("--keep-mode", default=None, help="vision.keep_mode (default: the config's)")
    parser.add_argument("--keep-gib", default=None, help="vision.keep_activations_gib (default: the config's)")
    parser.add_argument("--data", default="synthetic", metavar="DIR", help="synthetic (default), or a folder of prepared shards")
    parser.add_argument("--steps", default="8", help="measured steps of a case (default %(default)s)")
    parser.add_argument("--warmup", default="3", help="steps before them (default %(default)s)")
    parser.add_argument(
        "--case-seconds", default=None, help="behind these only a second measured step of a case begins (default: no limit)"
    )
    parser.add_argument("--seed", default="0", help="of the packs (default %(default)s)")
    parser.add_argument("--limit-seconds", default=None, help="begin nothing that would take longer (default: no limit)")
    parser.add_argument("--profile", action="store_true", help="one more step of each case, kernel by kernel")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="auto (default): cuda if there is one")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the results to this JSON file, behind every case")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the tables of a file of results, and measure nothing")
    parser.add_argument(
        "--make-data", type=Path, metavar="DIR", help="write shards of made-up clips for --data, and measure nothing"
    )


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, write.

    Returns:
        1 where a case failed for another reason than memory or what was asked for.

    Raises:
        InputError: an option that nothing can be measured with.
    """
    if arguments.table is not None:
        return _print_tables(arguments.table)
    if arguments.make_data is not None:
        from moss_train.bench.train.clips import make_data

        make_data(arguments.make_data, arguments.model, _say)
        return 0
    options = _options(arguments)
    file_to_write("--out", arguments.out)
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")  # packs of many sizes behind each other

    import torch

    from moss_train import platform
    from moss_train.platform.device import resolve_device

    platform.install()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device is cuda, but torch sees no CUDA device; use --device cpu")
    device = resolve_device(arguments.device)

    from moss_train.bench.train.cases import make_cases
    from moss_train.bench.train.run import Bench

    cases, left_out = make_cases(options)
    head = {**surroundings(VERSIONS, device), "options": _plain(options)}
    head["hardware"] = {**_dict(head["hardware"]), "memory": _memory(device)}

    def keep(results: dict[str, Any]) -> None:
        if arguments.out is not None:
            from moss_train.bench.plain import without_folders
            from moss_train.checkpoint.description import write_atomically

            write_atomically(arguments.out, json.dumps(without_folders({**head, **results}), indent=1) + "\n")

    results = Bench(options, device, keep, _say).run(cases, left_out)
    _show({**head, **results})
    return int(any("traceback" in case for case in results["cases"]))


def _options(arguments: argparse.Namespace) -> Options:
    from moss_train.bench.subject import Cut
    from moss_train.bench.train.cases import Options

    text = None if arguments.text_layers is None else positive("--text-layers", arguments.text_layers)
    if text is None and arguments.model == "11b":
        text = 10
    tower = None if arguments.tower_layers is None else positive("--tower-layers", arguments.tower_layers)
    return Options(
        stages=_words("--stages", arguments.stages), frames=_numbers("--frames", arguments.frames),
        rows=_numbers("--rows", arguments.rows), precisions=_words("--precision", arguments.precision), model=arguments.model,
        cut=Cut(text, tower), keep_mode=arguments.keep_mode, keep_gib=_float("--keep-gib", arguments.keep_gib),
        recompute=arguments.recompute, optimizer=arguments.optimizer,
        micro_batches=positive("--micro-batches", arguments.micro_batches),
        data=None if arguments.data == "synthetic" else Path(arguments.data), steps=positive("--steps", arguments.steps),
        warmup=_numbers("--warmup", arguments.warmup)[0], seed=_numbers("--seed", arguments.seed)[0],
        case_seconds=_float("--case-seconds", arguments.case_seconds),
        limit_seconds=_float("--limit-seconds", arguments.limit_seconds), profile=arguments.profile,
        overrides=tuple(arguments.overrides),
    )  # fmt: skip


def _words(option: str, given: str) -> tuple[str, ...]:
    words = tuple(dict.fromkeys(part.strip() for part in given.split(",") if part.strip()))
    if not words:
        raise InputError(f"{option} is empty; give one or more names separated by commas")
    return words


def _numbers(option: str, given: str) -> tuple[int, ...]:
    words = _words(option, given)
    for word in words:
        if not word.isdigit():
            raise InputError(f"{option} has {word!r}; it takes whole numbers of at least 0 separated by commas")
    return tuple(map(int, words))


def _float(option: str, given: str | None) -> float | None:
    try:
        return None if given is None else float(given)
    except ValueError:
        raise InputError(f"{option} is {given!r}; it takes a number") from None


def _plain(options: Options) -> dict[str, Any]:
    from dataclasses import asdict

    values = asdict(options)
    values["data"] = "synthetic" if options.data is None else options.data.name
    return values


def _dict(value: object) -> dict[str, Any]:
    assert isinstance(value, dict)
    return value


def _memory(device: Any) -> int:
    """Bytes of the device."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _show(content: dict[str, Any]) -> None:
    """Tables on the terminal, and what they do not say."""
    from moss_train.bench.train.tables import tables, untold

    show_tables(tables(content))
    for sentence in untold(content):
        print(sentence)


def _print_tables(path: Path) -> int:
    """A file's tables as Markdown."""
    from moss_train.bench.train.page import read
    from moss_train.bench.train.tables import tables, untold

    content = read(path)
    print_markdown(tables(content))
    for sentence in untold(content):
        print(f"\n{sentence}")
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
