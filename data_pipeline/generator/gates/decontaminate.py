"""Videos of evaluation sets, which must not be in a training corpus."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from data_pipeline.timeline.timeline import Timeline
from model.errors import InputError

_SHA256 = re.compile(r"[0-9a-f]{64}")
_BLOCK = 1 << 20


class Forbidden:
    """Ids, names, paths and digests of videos.

    Args:
        files: lists with one entry a line: a video's id, file name, path, or the SHA-256 of its file. Empty lines and those that
            begin with # are passed over.

    Raises:
        InputError: a list is missing or is not text.
    """

    def __init__(self, files: Iterable[str]) -> None:
        self.names: set[str] = set()
        self.digests: set[str] = set()
        for file in files:
            try:
                lines = Path(file).read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(f"gates.decontaminate: {file} cannot be read ({error}); give a text file of video ids") from None
            for line in lines:
                entry = line.strip()
                if not entry or entry.startswith("#"):
                    continue
                (self.digests if _SHA256.fullmatch(entry.lower()) else self.names).add(
                    entry.lower() if _SHA256.fullmatch(entry.lower()) else entry
                )

    def reason(self, timeline: Timeline) -> str | None:
        """Why a video is left out, or None."""
        path = timeline.video
        names = {timeline.id, timeline.split_key, path, os.path.basename(path), os.path.splitext(os.path.basename(path))[0]}
        if names & self.names - {""}:
            return "in a decontamination list by name"
        if self.digests and path and os.path.isfile(path) and file_digest(path) in self.digests:
            return "in a decontamination list by content"
        return None


def file_digest(path: str) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
