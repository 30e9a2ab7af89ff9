"""Where the media paths of rows lead, and what is there. Every path is looked at once, several at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.schema import Media
from data_pipeline.shards.media_info import fill_info
from model.errors import InputError


@dataclass(frozen=True)
class MediaFile:
    """One path of a row."""

    path: Path
    """Where the file is, or the first place where it was looked for."""
    media: Media | None
    """Its description: size, rate, duration, number of frames. None for a file that is missing or cannot be read."""
    fault: str = ""
    """Why it is missing or cannot be read."""
    missing: bool = False


class MediaFiles:
    """Looks files up in threads: opening a file is waiting for the disk and for code that leaves the interpreter free."""

    def __init__(self, roots: Sequence[Path], workers: int = 4) -> None:
        """
        Args:
            roots: folders in which relative paths are looked for, in this order; then the path is taken as it is.
        """
        self._roots = list(roots)
        self._workers = max(1, workers)
        self._known: dict[tuple[str, str], MediaFile] = {}

    def look_up(self, wanted: Iterable[tuple[str, str]]) -> None:
        """Open every (path, type) that is not known yet; faults are remembered, not raised."""
        new = [key for key in dict.fromkeys(wanted) if key not in self._known]
        if len(new) == 1:
            self._known[new[0]] = self._look(new[0])
        elif new:
            with ThreadPoolExecutor(min(self._workers, len(new))) as pool:
                self._known.update(zip(new, pool.map(self._look, new), strict=True))

    def get(self, path: str, kind: str) -> MediaFile:
        """What `path` of type `kind` (image or video) is."""
        self.look_up([(path, kind)])
        return self._known[path, kind]

    def _look(self, key: tuple[str, str]) -> MediaFile:
        name, kind = key
        places = [*(root / name for root in self._roots), Path(name)]
        try:
            path = next((p for p in places if p.is_file()), None)
            if path is None:
                folders = ", ".join(str(root) for root in self._roots)
                return MediaFile(places[0], None, f"{name} is neither in {folders or '.'} nor a path from here", missing=True)
            media = Media(type=kind, file=path.name)
            fill_info(media, path, str(path))
        except (InputError, OSError) as error:  # OSError: no permission, a name that is too long
            return MediaFile(places[0], None, str(error))
        return MediaFile(path, media)
