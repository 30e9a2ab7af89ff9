"""What of a build lies on the disk: settings, parts, and a lock, so that a killed build goes on and two never mix."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_pipeline.generator.build.config import VERSION, BuildConfig
from model.errors import InputError

PART = "part.json"
SETTINGS = "settings.json"


class BuildFolder:
    """The folder of one build; only one process at a time has it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self._lock: Any = None

    def open(self, settings: Mapping[str, Any], *, overwrite: bool = False) -> None:
        """Take it for these settings; parts of a killed build that are not whole are removed.

        Raises:
            InputError: another process has it, it is no build, or it was begun with other settings.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file; give the name of a folder")
        if self.path.is_dir() and not (self.path / SETTINGS).is_file() and any(not _is_ours(p.name) for p in self.path.iterdir()):
            raise InputError(f"{self.path} holds other files; choose an empty folder")
        self.path.mkdir(parents=True, exist_ok=True)
        self._take()
        stored = self.settings()
        if stored is not None and stored != settings and overwrite:
            for entry in self.path.iterdir():
                if entry.name != ".lock":
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            stored = None
        if stored is None:
            write_json(self.path / SETTINGS, settings)
        elif stored != settings:
            changed = ", ".join(_differences(stored, settings))
            raise InputError(
                f"{self.path} was begun with other settings ({changed}); choose another folder, or begin anew with --overwrite"
            )
        for leftover in (self.path / "parts").glob("*/.*"):
            shutil.rmtree(leftover, ignore_errors=True)
        for pattern in (".*.tmp", "samples/.*.tmp", "scenarios/.*.tmp"):
            for leftover in self.path.glob(pattern):
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()

    def close(self) -> None:
        """Let others have it."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def settings(self) -> dict[str, Any] | None:
        """Those that it was begun with."""
        path = self.path / SETTINGS
        if not path.is_file():
            return None
        try:
            values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{path} is damaged ({error}); begin anew in another folder") from None
        return values

    def part(self, split: str, number: int) -> Path:
        """Folder of a part."""
        return self.path / "parts" / split / f"{number:06d}"

    def is_done(self, split: str, number: int) -> bool:
        """Whether a part is there; it is whole if it is."""
        return (self.part(split, number) / PART).is_file()

    def parts(self, split: str) -> Iterator[Path]:
        """Folders of the finished parts of a split, in order."""
        yield from sorted(p for p in (self.path / "parts" / split).glob("[0-9]*") if (p / PART).is_file())

    def _take(self) -> None:
        self._lock = (self.path / ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.close()
            raise InputError(f"another process builds in {self.path}; wait for its end or choose another folder") from None


def settings_of(config: BuildConfig, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What decides over the rows of a build, as plain JSON values: two builds with equal settings are equal."""
    values = json.loads(json.dumps(dataclasses.asdict(config)))
    return {"version": VERSION, **values, **(extra or {})}


def write_json(path: Path, values: Any) -> None:
    """Write a file atomically and durably."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(json.dumps(values, ensure_ascii=False, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _is_ours(name: str) -> bool:
    """Whether a file may be there although a build was killed before its settings were."""
    return name == ".lock" or (name.startswith(".") and name.endswith(".tmp"))


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for key in sorted(set(before) | set(now)):
        a, b = before.get(key), now.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            yield from _differences(a, b, f"{path}{key}.")
        elif a != b:
            yield f"{path}{key}: {a!r} there, {b!r} now"
