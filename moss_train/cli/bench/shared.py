"""What the measurements have in common: checked numbers, and where and with what they were made."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from model.errors import InputError


def positive(name: str, given: str) -> int:
    """A whole number of at least 1.

    Raises:
        InputError: it is something else.
    """
    if not given.strip().isdigit() or int(given) < 1:
        raise InputError(f"{name} has {given!r}; it takes numbers of at least 1")
    return int(given)


def chosen(name: str, given: str, known: Sequence[str]) -> list[str]:
    """Names separated by commas.

    Raises:
        InputError: one is not among the known, or there is none.
    """
    found = [part.strip() for part in given.split(",") if part.strip()]
    for part in found:
        if part not in known:
            raise InputError(f"{name} has {part!r}; use some of {', '.join(known)}")
    if not found:
        raise InputError(f"{name} is empty; use some of {', '.join(known)}")
    return found


def file_to_write(name: str, path: Path | None) -> None:
    """Make the folder of a file that will be written.

    Raises:
        InputError: the file is a folder.
    """
    if path is None:
        return
    if path.is_dir():
        raise InputError(f"{name} {path} is a folder; give the name of a file")
    path.parent.mkdir(parents=True, exist_ok=True)


def writer(path: Path | None, head: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    """What writes results behind their head to a file of JSON, replaced whole each time; without a file it does nothing."""
    from moss_train.bench.plain import without_folders
    from moss_train.checkpoint.description import write_atomically

    def write(results: dict[str, Any]) -> None:
        if path is not None:
            write_atomically(path, json.dumps(without_folders({**head, **results}), indent=1) + "\n")

    return write


def surroundings(packages: Sequence[str], device: Any) -> dict[str, object]:
    """Command, date, hardware and the versions of those `packages` that are installed."""
    import torch

    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    hardware: dict[str, object] = {"device": platform.processor() or platform.machine()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        hardware = {
            "device": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "multiprocessors": properties.multi_processor_count,
        }
        versions["cuda"] = str(torch.version.cuda)
        with suppress(RuntimeError):  # a library has brought another cuDNN than torch's
            versions["cudnn"] = str(torch.backends.cudnn.version())
    return {
        "command": "moss " + shlex.join(sys.argv[1:]),
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": hardware,
        "versions": versions,
    }


def show_tables(tables: Iterable[Any]) -> None:
    """Tables on the terminal, as wide as it is; 200 columns where there is none.

    Args:
        tables: `moss_train.bench.train.tables.Table`.
    """
    from rich.console import Console
    from rich.table import Table as RichTable

    console = Console(width=None if sys.stdout.isatty() else 200)
    for table in tables:
        shown = RichTable(title=table.title, title_justify="left")
        for place, name in enumerate(table.header):
            shown.add_column(name, justify="right" if place else "left", overflow="fold")
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)


def print_markdown(tables: Iterable[Any]) -> None:
    """The same tables as Markdown."""
    for table in tables:
        print("\n".join(["", f"### {table.title}", "", *table.markdown()]))
