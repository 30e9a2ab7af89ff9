"""Videos of evaluation sets, which must not be in a training corpus."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from data_pipeline.timeline.timeline import Timeline
from model.errors import InputError

_SHA256 = re.compile(r"[0-9a-f]{64}")
_BLOCK = 1 << 20
_FIELDS = ("id", "video", "video_id", "file", "path", "sha256")
"""Of a line of JSON: what names its video."""


class Forbidden:
    """Ids, names, paths and digests of videos.

    Args:
        files: lists with one entry a line: a video's id, file name, path, or the SHA-256 of its file (also as `sha256sum` prints
            it), or a JSON object such as a scenario of an evaluation. Empty lines and those that begin with # are passed over.

    Raises:
        InputError: a list is missing, is not text, or names nothing.
    """

    def __init__(self, files: Iterable[str]) -> None:
        self.names: set[str] = set()
        self.digests: set[str] = set()
        for file in files:
            try:
                lines = Path(file).read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(f"gates.decontaminate: {file} cannot be read ({error}); give a text file of video ids") from None
            entries = [(n, line.strip()) for n, line in enumerate(lines, start=1) if line.strip() and line.strip()[0] != "#"]
            for number, entry in entries:
                self._enter(entry, f"gates.decontaminate: {file} line {number}")
            if not entries:
                raise InputError(f"gates.decontaminate: {file} names no video; give one id, path or SHA-256 a line")

    def reason(self, timeline: Timeline) -> str | None:
        """Why a video is left out, or None."""
        path = timeline.video
        names = {timeline.id, timeline.split_key, *_names_of(path)}
        if names & self.names - {""}:
            return "in a decontamination list by name"
        if self.digests and path and os.path.isfile(path) and file_digest(path) in self.digests:
            return "in a decontamination list by content"
        return None

    def _enter(self, entry: str, where: str) -> None:
        if entry.startswith("{"):
            try:
                values = json.loads(entry)
            except ValueError as error:
                raise InputError(f"{where} is no JSON ({error}); give a video's id, path or SHA-256") from None
            named = [str(values[name]) for name in _FIELDS if values.get(name)]
            if not named:
                raise InputError(f"{where} names no video; give one of the fields {', '.join(_FIELDS)}")
        else:
            digest, _, name = entry.partition(" ")
            named = [digest, name.strip().lstrip("*")] if _SHA256.fullmatch(digest.lower()) else [entry]
        for one in filter(None, named):
            if _SHA256.fullmatch(one.lower()):
                self.digests.add(one.lower())
            else:
                self.names |= {one, os.path.normpath(one)}


def _names_of(path: str) -> set[str]:
    """What a list may call a file: its path, any end of it that begins with a folder or file, and its name without the ending."""
    if not path:
        return set()
    parts = os.path.normpath(path).split(os.sep)
    ends = {os.sep.join(parts[i:]) for i in range(len(parts))}
    return {path, os.path.abspath(path), os.path.splitext(parts[-1])[0], *ends}


def file_digest(path: str) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
