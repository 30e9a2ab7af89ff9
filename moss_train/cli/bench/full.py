"""`moss bench full`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.errors import InputError
from moss_train.cli.bench.shared import file_to_write, positive, show_tables, surroundings

if TYPE_CHECKING:
    from moss_train.bench.full.depth import FullOptions

VERSIONS = ("torch", "triton", "megatron-core", "transformer-engine", "flash-attn", "flash-attn-4")
"""Packages whose versions are written beside the numbers."""
EXAMPLES = """examples:
  moss bench full --out full.json                                     the whole 11B, 4,096 rows and 64 frames a step
  moss bench full --layers auto --save /dev/shm/full --out full.json  as deep as the card takes; saved and continued
  moss bench full --save /dev/shm/full --keep --limit-seconds 280 --out save.json; moss bench full --resume /dev/shm/full
  moss bench full --layers 20 --save /scratch/full --keep; moss bench full --layers 20 --resume /scratch/full"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to measure."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="further values of the run's config, as of `moss train`"
    )
    parser.add_argument("--stage", default="pt2", help="of conf/stage (default %(default)s)")
    parser.add_argument("--model", default="11b", help="of conf/model (default %(default)s)")
    parser.add_argument("--precision", default="bf16", help="bf16 (default) or fp8")
    parser.add_argument(
        "--layers", default="all", help="of the decoder: all (default), a number, or auto: as many as fit by the plan"
    )
    parser.add_argument("--tower-layers", default=None, help="layers of the tower, local and global (default all)")
    parser.add_argument("--rows", default="4096", help="rows of a pack, frames included (default %(default)s)")
    parser.add_argument("--frames", default="64", help="its frames (default %(default)s)")
    parser.add_argument("--micro-batches", default="1", help="packs of a step (default %(default)s)")
    parser.add_argument("--recompute", default="full", help="full (default) or none: of the decoder's layers")
    parser.add_argument(
        "--keep-gib", default="12", help="of the tower's state, vision.keep_activations_gib (default %(default)s)"
    )
    parser.add_argument("--steps", default="5", help="measured steps (default %(default)s)")
    parser.add_argument("--warmup", default="2", help="steps before them (default %(default)s)")
    parser.add_argument("--save", type=Path, metavar="DIR", help="save a checkpoint there, load it, and compare what follows")
    parser.add_argument("--keep", action="store_true", help="leave that checkpoint where it is")
    parser.add_argument(
        "--resume", type=Path, metavar="DIR", help="load what another process has saved and kept, and compare; no steps are timed"
    )
    parser.add_argument(
        "--limit-seconds", default=None, help="begin nothing behind them, and say what was left out (default: no limit)"
    )
    parser.add_argument("--card-gib", default=None, help="memory that auto and the plan count with (default: the device's)")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="auto (default): cuda if there is one")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write what was measured to this JSON file")


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, write.

    Returns:
        1 where a continuation is not the same.

    Raises:
        InputError: an option that nothing can be measured with.
    """
    begin = time.perf_counter()
    options = _options(arguments)
    limit = None if arguments.limit_seconds is None else _above_zero("--limit-seconds", arguments.limit_seconds)
    file_to_write("--out", arguments.out)
    if arguments.save is not None and arguments.resume is not None:
        raise InputError("--save and --resume are both given; save in one call and resume in another")
    if arguments.save is not None and (arguments.save / "checkpoints").exists():
        raise InputError(f"--save {arguments.save} holds checkpoints; give another folder")
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")  # what is freed in pieces fits again

    import torch

    from moss_train import platform
    from moss_train.platform.device import resolve_device

    platform.install()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device is cuda, but torch sees no CUDA device; use --device cpu")
    device = resolve_device(arguments.device)

    from moss_train.bench.full.depth import choose_case
    from moss_train.bench.full.measure import measure, summary
    from moss_train.bench.full.tables import tables
    from moss_train.bench.plain import without_folders
    from moss_train.bench.saving import clear
    from moss_train.checkpoint.description import write_atomically

    card = _card(arguments.card_gib, device)
    case = choose_case(options, card)

    def keep(found: dict[str, Any]) -> None:
        """Behind each part, so that what ends the command later takes nothing."""
        if arguments.out is None:
            return
        head = {
            **surroundings(VERSIONS, device),
            "summary": summary(found),
            "options": {**_plain(options), "limit_seconds": limit},
        }
        head["hardware"] = {**_values(head["hardware"]), "memory": card}
        shown = [{"title": t.title, "header": list(t.header), "rows": [list(row) for row in t.rows]} for t in tables(found)]
        write_atomically(arguments.out, json.dumps(without_folders({**head, "tables": shown, **found}), indent=1) + "\n")

    try:
        found = measure(
            options, case, device, card, arguments.save, arguments.resume, _say,
            deadline=None if limit is None else begin + limit, keep=keep,
        )  # fmt: skip
    except torch.OutOfMemoryError as error:
        raise InputError(f"out of memory: {str(error).splitlines()[0]}; give fewer --layers, --frames or --rows") from error
    finally:
        if arguments.save is not None and not arguments.keep:
            clear(arguments.save)
    keep(found)
    _show(tables(found), found)
    proofs = [found[name] for name in ("proof", "resumed") if name in found]
    return int(not all(proof.get("same_state", True) and proof.get("same_steps", True) for proof in proofs))


def _options(arguments: argparse.Namespace) -> FullOptions:
    from moss_train.bench.full.depth import ALL, AUTO, FullOptions

    layers: int | str = arguments.layers
    if layers not in (ALL, AUTO):
        if not str(layers).isdigit() or int(layers) < 1:
            raise InputError(f"--layers has {layers!r}; it takes all, auto, or a number of at least 1")
        layers = int(layers)
    if not arguments.frames.isdigit():
        raise InputError(f"--frames has {arguments.frames!r}; it takes a whole number of at least 0")
    if not arguments.warmup.isdigit():
        raise InputError(f"--warmup has {arguments.warmup!r}; it takes a whole number of at least 0")
    return FullOptions(
        stage=arguments.stage, model=arguments.model, precision=arguments.precision, layers=layers,
        tower_layers=None if arguments.tower_layers is None else positive("--tower-layers", arguments.tower_layers),
        rows=positive("--rows", arguments.rows), frames=int(arguments.frames),
        micro_batches=positive("--micro-batches", arguments.micro_batches), recompute=arguments.recompute,
        keep_gib=_above_zero("--keep-gib", arguments.keep_gib),
        steps=positive("--steps", arguments.steps), warmup=int(arguments.warmup), overrides=tuple(arguments.overrides),
    )  # fmt: skip


def _card(given: str | None, device: Any) -> int:
    """Bytes of the device, or those that it is to count as."""
    if given is not None:
        return int(_above_zero("--card-gib", given) * 2**30)
    if device.type == "cuda":
        import torch

        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _above_zero(option: str, given: str) -> float:
    try:
        value = float(given)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise InputError(f"{option} is {given!r}; it takes a number above 0")
    return value


def _plain(options: FullOptions) -> dict[str, Any]:
    return {**asdict(options), "overrides": list(options.overrides)}


def _values(value: object) -> dict[str, Any]:
    assert isinstance(value, dict)
    return value


def _show(made: list[Any], found: dict[str, Any]) -> None:
    """Tables on the terminal, and what they do not say."""
    model = found["model"]
    print(
        f"{model['text_layers']} layers of the decoder, {model['tower_layers']} of the tower; the plan says "
        f"{found['plan']['total'] / 2**30:.1f} of {found['card_bytes'] / 2**30:.1f} GiB"
    )
    show_tables(made)
    if "layers_that_fit" in found:
        print(f"by what was measured {found['layers_that_fit']} layers fit")
    for name in ("proof", "resumed"):
        if not found.get(name, {}).get("same_steps", True) and not found[name].get("repeatable", True):
            print("these kernels do not give the same bits twice from one checkpoint")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
