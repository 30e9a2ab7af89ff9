"""Reading a build folder: its summary and the tallies of its parts."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from data_pipeline.generator.card.tally import Tally
from model.errors import InputError

ORDER = ("train", "validation", "test")
"""Splits in the order in which they are shown; others follow by name."""


@dataclass
class Build:
    """What the card shows of a build, the sample rows apart."""

    folder: Path
    summary: dict[str, Any] = field(default_factory=dict)
    """`build.json`; empty where the build has not come to its end."""
    splits: dict[str, Tally] = field(default_factory=dict)
    parts: list[Path] = field(default_factory=list)
    """Folders of finished parts, by split and number."""

    @property
    def tally(self) -> Tally:
        """All splits together."""
        tally = Tally()
        for one in self.splits.values():
            tally.merge(one)
        return tally

    def shared_keys(self) -> dict[tuple[str, str], int]:
        """How many split keys two splits have in common; for a sound build 0 for every pair."""
        return {(a, b): len(self.splits[a].split_keys & self.splits[b].split_keys) for a, b in combinations(self.splits, 2)}


def read_build(folder: Path) -> Build:
    """Read `build.json` and every `parts/<split>/<number>/part.json`.

    Raises:
        InputError: the folder is no build, or a file of it is damaged.
    """
    if not folder.is_dir():
        raise InputError(f"build folder {folder} does not exist; give the folder that `moss data generate` wrote")
    splits = sorted((p for p in (folder / "parts").glob("*") if p.is_dir()), key=_place)
    build = Build(folder)
    if (folder / "build.json").is_file():
        build.summary = read_object(folder / "build.json")
    for split in splits:
        for part in sorted(p for p in split.iterdir() if (p / "part.json").is_file()):
            values = read_object(part / "part.json")
            if "tally" not in values:
                raise InputError(f"{part / 'part.json'} has no field tally; delete the part and build it again")
            tally = Tally.from_dict(values["tally"], f"{part / 'part.json'} field tally")
            build.splits.setdefault(split.name, Tally()).merge(tally)
            build.parts.append(part)
    if not build.parts:
        raise InputError(f"{folder} holds no finished part (parts/<split>/<number>/part.json); `moss data generate` writes them")
    return build


def read_object(path: Path) -> dict[str, Any]:
    """A file that holds one JSON object.

    Raises:
        InputError: it is anything else.
    """
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}); build it again") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} holds no JSON object; build it again")
    return values


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file of lines; nothing where there is no such file.

    Raises:
        InputError: a line is no JSON object.
    """
    if not path.is_file():
        return
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                values = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{path} line {number} is not JSON ({error}); delete the part and build it again") from None
            if not isinstance(values, dict):
                raise InputError(f"{path} line {number} is no JSON object; delete the part and build it again")
            yield values


def finite(value: Any) -> float | None:
    """A number of somebody else's summary, or None where it is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _place(split: Path) -> tuple[int, str]:
    return (ORDER.index(split.name) if split.name in ORDER else len(ORDER), split.name)
