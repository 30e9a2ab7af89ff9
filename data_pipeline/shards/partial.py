"""The working folder of `moss data prepare`: what an interrupted run leaves, and how the next one goes on with it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_pipeline.shards.plan import Group, Plan
from data_pipeline.shards.writer import SHARD_PATTERN, with_own_name, write_json
from model.errors import InputError


def partial_folder(target: Path) -> Path:
    """Where the shards of a folder are kept until all are there."""
    target = with_own_name(target)
    return target.with_name(f".{target.name}.partial")


def finished_groups(target: Path) -> int:
    """How many groups an interrupted run has kept."""
    return len(list((partial_folder(target) / "records").glob("*.json")))


class Partial:
    """An open working folder. Only one process at a time has it.

    `plan.json` says what is being made; `shards/` holds finished tars and `records/` one record for each finished group;
    `final/` is the dataset folder while it is put together, `names.json` how its tars were called before.
    """

    def __init__(self, target: Path, plan: Plan, restart: bool) -> None:
        """
        Raises:
            InputError: another process writes to it, or it holds an unfinished run of another plan and not `restart`.
        """
        self.folder = partial_folder(target)
        self.shards = self.folder / "shards"
        self.final = self.folder / "final"
        self._records = self.folder / "records"
        self._names = self.folder / "names.json"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self.folder)
        try:
            self._open(plan.to_dict(), restart)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let others have it; what is in it stays."""
        self._lock.close()

    def remove(self) -> None:
        """Forget it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def has_records(self) -> bool:
        """Whether any group is finished."""
        return any(self._records.glob("*.json"))

    def record(self, group: Group) -> dict[str, Any] | None:
        """The record of a group; None unless the group is finished and still is what the plan asks for."""
        try:
            found: dict[str, Any] = json.loads(self._record_path(group.number).read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError):
            return None
        whole = all(self._has(part) for part in found["parts"])
        wanted = group.options.skip_bad or not found["skipped"]
        same = bool(found["media_stamp"] == group.media_stamp)
        return found if whole and wanted and same else None

    def store(self, number: int, record: Mapping[str, Any]) -> None:
        """Note that a group is finished."""
        path = self._record_path(number)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(record), encoding="utf-8")
        os.replace(temporary, path)

    def assemble(self, parts: list[str]) -> list[str]:
        """Move the tars, in order, into `final` and number them; returns their names there."""
        names = {part: SHARD_PATTERN % number for number, part in enumerate(parts)}
        write_json(self._names, names)
        self.final.mkdir()
        for part, name in names.items():
            os.replace(self.shards / part, self.final / name)
        return list(names.values())

    def _open(self, plan: dict[str, Any], restart: bool) -> None:
        described = self.folder / "plan.json"
        if restart:
            for path in self.folder.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.name != "lock":
                    path.unlink()
        elif described.is_file():
            _refuse_other_plan(self.folder, json.loads(described.read_text(encoding="utf-8")), plan)
        for folder in (self.shards, self._records):
            folder.mkdir(exist_ok=True)
        if not described.is_file():
            temporary = described.with_suffix(".tmp")
            write_json(temporary, plan)
            os.replace(temporary, described)
        self._undo_assembly()
        for left in [*self.shards.glob(".*.tmp"), *self._records.glob("*.tmp")]:
            left.unlink(missing_ok=True)

    def _undo_assembly(self) -> None:
        if self.final.is_dir():
            for part, name in json.loads(self._names.read_text(encoding="utf-8")).items():
                if (self.final / name).is_file():
                    os.replace(self.final / name, self.shards / part)
            shutil.rmtree(self.final)

    def _record_path(self, number: int) -> Path:
        return self._records / f"{number:06d}.json"

    def _has(self, part: Mapping[str, Any]) -> bool:
        path = self.shards / str(part["name"])
        return path.is_file() and path.stat().st_size == int(part["bytes"])


def _lock(folder: Path) -> Any:
    file = (folder / "lock").open("w")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock: a forked child would hold it too
    except OSError:
        file.close()
        raise InputError(f"{folder} is in use by another `moss data prepare`; wait for it or write to another folder") from None
    return file


def _refuse_other_plan(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    changed = [name for name in now if before.get(name) != now[name]]
    if changed:
        reasons = [
            "the annotation file was changed" if name == "annotations" else f"{name} was {before.get(name)} and is {now[name]}"
            for name in changed
        ]
        raise InputError(
            f"{folder} holds an unfinished run that differs: {'; '.join(reasons)}; "
            "give the values of that run to go on with it, or pass --restart to begin anew"
        )
