"""What importers share: annotation files, videos below a folder, prompt templates, manifests."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
import string
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import yaml

from data_pipeline.media.decode import probe_video
from data_pipeline.media.sampling import VideoInfo
from inference.evaluation.schema import Scenario
from inference.evaluation.storage import save_scenarios, write_lines
from inference.evaluation.suites.suite import Imported, ImportOptions, Manifest
from model.errors import InputError

T = TypeVar("T")

VIDEO_ENDINGS = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".flv", ".ts")
_ANY_FOLDER = ("videos", "video", "data", "clips")
"""Folders whose names tell nothing of what is in them."""
_SLACK = 1e-6


def read_json(path: Path) -> Any:
    """Content of an annotation file; of one that ends in .jsonl a list.

    Raises:
        InputError: it is missing or no JSON.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in text.split("\n") if line.strip()]
        return json.loads(text)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}); give the released annotation file") from error


def read_list(path: Path) -> list[Any]:
    """The same where it must be a list of entries.

    Raises:
        InputError: it is none, or empty.
    """
    content = read_json(path)
    if not isinstance(content, list) or not content:
        raise InputError(f"{path} holds no list of entries; give the released annotation file")
    return content


def take(entry: Any, name: str, kind: type[T] | tuple[type[T], ...], where: str) -> T:
    """A field of an entry.

    Args:
        kind: what it must be; a whole number will do for a float.
        where: names file and entry in messages.

    Raises:
        InputError: the entry is no object, the field is missing or of another type.
    """
    if not isinstance(entry, Mapping):
        raise InputError(f"{where} is {str(entry)[:60]!r}; it must be an object with the field {name}")
    if name not in entry:
        raise InputError(f"{where} has no field {name}; give the released annotation file")
    value = entry[name]
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        names = " or ".join(one.__name__ for one in kinds)
        raise InputError(f"{where}: {name} is {value!r}; it must be of type {names}")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{where}: {name} is {value}; it must be finite")
    return value  # type: ignore[return-value]


def texts(entry: Any, name: str, where: str) -> list[str]:
    """A field that is a list of texts.

    Raises:
        InputError: as `take`; or something else is in the list.
    """
    values = take(entry, name, list, where)
    if not all(isinstance(value, str) for value in values):
        raise InputError(f"{where}: {name} is {values!r}; it must be a list of texts")
    return values


def seconds_of(value: Any, where: str) -> float:
    """Seconds of `HH:MM:SS`, `MM:SS`, or a number.

    Raises:
        InputError: it is neither, or negative.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf:
        return float(value)
    if isinstance(value, str) and re.fullmatch(r"\s*\d+(:\d+){0,2}(\.\d+)?\s*", value):
        seconds = 0.0
        for part in value.split(":"):
            seconds = 60 * seconds + float(part)
        return seconds
    raise InputError(f"{where}: time is {value!r}; it must be HH:MM:SS or seconds")


class Videos:
    """Videos below a folder, found by what annotations call them.

    Args:
        folder: `ImportOptions.videos`.

    Attributes:
        missing: names that were not found or cannot be opened, in the order in which they were asked for.

    Raises:
        InputError: there is no such folder.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise InputError(f"{folder} is no folder; give that of the benchmark's videos")
        self._folder = folder
        self._by_name: dict[str, list[PurePosixPath]] | None = None
        self._info: dict[str, VideoInfo] = {}
        self._missing: dict[str, None] = {}

    @property
    def missing(self) -> list[str]:
        return list(self._missing)

    def find(self, name: str, folders: int | None = None) -> str | None:
        """Path of a video relative to the folder; None, and noted as missing, where there is none or it cannot be opened.

        `name` may begin with folders that the user does not have, and may lack its ending.

        Args:
            folders: so many folders above the file must be those of `name`; None: one, unless its name tells nothing (`videos`).

        Raises:
            InputError: several files fit equally well.
        """
        found = self.look(name, folders)
        if found is None:
            self._missing[name] = None
        return found

    def look(self, name: str, folders: int | None = None) -> str | None:
        """As `find`, but nothing is noted: for a video that may have another name as well."""
        found = self._search(name, folders)
        if found is None or found in self._info:
            return found
        try:
            self._info[found] = probe_video(self._folder / found)
        except InputError:
            return None
        return found

    def duration(self, found: str) -> float:
        """Seconds of a video that `find` gave."""
        return self._info[found].duration

    def frames(self, found: str, fps: float, *, begin: float = 0.0, until: float | None = None) -> int:
        """How many frames at begin, begin + 1 / fps, … are in a video that `find` gave, the last not after `until` seconds."""
        info = self._info[found]
        count = math.ceil((info.num_frames / info.fps - begin) * fps - _SLACK)
        if until is not None:
            count = min(count, math.floor((until - begin) * fps + _SLACK) + 1)
        return max(0, count)

    def _search(self, name: str, folders: int | None) -> str | None:
        wanted = PurePosixPath(name.replace("\\", "/"))
        parts = tuple(part for part in wanted.parts if part not in (".", "/"))
        if not parts:
            return None
        direct = PurePosixPath(*parts)
        if ".." not in parts and (self._folder / direct).is_file():
            return str(direct)
        by_name = self._index()
        # A dot in a name without an ending is no ending.
        candidates = by_name.get(parts[-1]) or [p for end in VIDEO_ENDINGS for p in by_name.get(parts[-1] + end, [])]
        if not candidates and PurePosixPath(parts[-1]).suffix in VIDEO_ENDINGS:
            stem = PurePosixPath(parts[-1]).stem
            candidates = [p for end in VIDEO_ENDINGS for p in by_name.get(stem + end, [])]
        ranks = [_shared_folders(candidate.parts, parts) for candidate in candidates]
        least = int(len(parts) > 1 and parts[-2] not in _ANY_FOLDER) if folders is None else folders
        if max(ranks, default=-1) < least:
            return None
        best = [candidate for candidate, rank in zip(candidates, ranks, strict=True) if rank == max(ranks)]
        if len(best) > 1:
            both = " and ".join(str(self._folder / one) for one in best[:2])
            raise InputError(f"video {name} may be {both}; leave one of them in the folder")
        return str(best[0])

    def _index(self) -> dict[str, list[PurePosixPath]]:
        if self._by_name is None:
            self._by_name = {}
            for path in sorted(self._folder.rglob("*")):
                if path.suffix in VIDEO_ENDINGS and not path.name.startswith("._"):  # what archives of a Mac hold besides
                    self._by_name.setdefault(path.name, []).append(PurePosixPath(path.relative_to(self._folder).as_posix()))
        return self._by_name


def _shared_folders(ours: Sequence[str], theirs: Sequence[str]) -> int:
    """How many folders, counted from the file upwards, two paths have in common; ours may have more behind its name (`_1-50`)."""
    count = 0
    for a, b in zip(reversed(ours[:-1]), reversed(theirs[:-1]), strict=False):
        if a != b and not re.fullmatch(re.escape(b) + r"[_ -]\d+-\d+", a):
            break
        count += 1
    return count


def load_templates(defaults: Mapping[str, str], path: Path | None) -> dict[str, str]:
    """Templates by name: the suite's own, with those of a YAML file in their places.

    A template is a text with fields in braces, such as `{question}`; one of the file may use the fields of the one that it
    replaces, all or some of them, and no others.

    Raises:
        InputError: the file cannot be read, names an unknown template or field, or holds something that is no text.
    """
    found = dict(defaults)
    if path is None:
        return found
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"--prompts {path} cannot be read ({error}); give a YAML file of templates by name") from error
    if not isinstance(content, dict):
        raise InputError(f"--prompts {path} holds no templates by name; write lines such as `name: text`")
    for name, text in content.items():
        if name not in defaults:
            raise InputError(f"--prompts {path} has a template {name!r}; this suite has {', '.join(defaults)}")
        if not isinstance(text, str):
            raise InputError(f"--prompts {path}: {name} is {text!r}; it must be a text")
        unknown = _fields(text, f"--prompts {path}: {name}") - _fields(defaults[name], name)
        if unknown:
            known = ", ".join(sorted(_fields(defaults[name], name))) or "none"
            raise InputError(f"--prompts {path}: {name} uses the field {sorted(unknown)[0]!r}; known are {known}")
        found[name] = text
    return found


def _fields(template: str, where: str) -> set[str]:
    try:
        return {field for _, field, _, _ in string.Formatter().parse(template) if field is not None}
    except ValueError as error:
        raise InputError(f"{where} is no template ({error}); write {{{{ and }}}} for braces") from error


def sha256_of(path: Path) -> str:
    """Of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make_manifest(
    suite: str,
    options: ImportOptions,
    annotations: Sequence[Path],
    prompts: Mapping[str, str],
    scenarios: Sequence[Scenario],
    videos: Videos,
    *,
    license: str,
    source: str,
    context_seconds: float | None = None,
    notes: Sequence[str] = (),
) -> Manifest:
    """What a set of scenarios was made of.

    Args:
        context_seconds: how far clips reach back, as used; None or infinity: to the beginning.

    Raises:
        InputError: there is no scenario: none of the videos was found.
    """
    if not scenarios:
        if not videos.missing:
            raise InputError(f"nothing of the annotations can be asked: {'; '.join(list(notes)[:2]) or 'they hold no entry'}")
        some = ", ".join(videos.missing[:3])
        raise InputError(f"none of the {len(videos.missing)} videos was found ({some}, …); give their folder to --videos")
    text = json.dumps(dict(sorted(prompts.items())), ensure_ascii=False)
    return Manifest(
        suite=suite,
        release=options.release,
        annotations={path.name: sha256_of(path) for path in annotations},
        prompts=dict(prompts),
        prompts_sha256=hashlib.sha256(text.encode()).hexdigest(),
        fps=options.fps,
        max_frames=options.max_frames,
        context_seconds=None if context_seconds == math.inf else context_seconds,
        license=license,
        source=source,
        scenarios=len(scenarios),
        items=sum(len(one.questions) + len(one.polls) + len(one.spans) for one in scenarios),
        missing_videos=videos.missing,
        notes=list(notes),
    )


def save_import(path: Path, manifest_file: Path, imported: Imported, videos: Path) -> None:
    """Write scenarios and manifest, each atomically, the manifest first: a scenario file never lacks it.

    Args:
        videos: folder that relative paths of the scenarios' files begin in. Files below the scenario file's own folder are named
            relative to it, others by their whole path.
    """
    home = Path(os.path.abspath(path.parent))

    def placed(name: str) -> str:
        # Links are not followed: what they point to may have names without an ending.
        whole = Path(os.path.abspath(videos / name))
        return whole.relative_to(home).as_posix() if whole.is_relative_to(home) else str(whole)

    scenarios = [
        dataclasses.replace(one, video=placed(one.video) if one.video else "", frames=[placed(name) for name in one.frames])
        for one in imported.scenarios
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_lines(manifest_file, [json.dumps(dataclasses.asdict(imported.manifest), indent=1, ensure_ascii=False)])
    save_scenarios(path, scenarios)
