"""What a user may say about a source of annotations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from data_pipeline.timeline.timeline import LEVELS
from model.errors import InputError

EVIDENT = ("begin", "middle", "end")


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """The same for all readers; an empty text leaves a value to the rows or to the format."""

    evident: str = ""
    """begin | middle | end: when the text of a stretch can be known. Empty: as the level says, `end` for captions."""
    level: str = ""
    """One of `LEVELS`: of all segments of a flat list; empty means `event` for captions, `action` for annotated actions."""
    media_root: Path | None = None
    """Folder of the videos; None means that of the annotations."""
    probe: bool = True
    """Whether a duration that a row lacks is read from the video file."""
    last_end: bool = False
    """Whether the end of the last segment counts as the duration where neither row nor file tells it."""
    language: str = ""
    """en | zh; empty means the row's, else en. For subtitles also the files to take, as in `clip.en.srt`."""
    license: str = ""
    source: str = ""
    """Name of the data set; empty means the row's, else the name of the file."""
    split_key: str = ""
    """Field of the rows whose value keeps videos in one split, such as `channel`; empty means the video's id."""
    on_fault: Callable[[str], None] | None = None
    """Called with one sentence for every row that cannot be used; None means that the first one is an error."""
    on_video: Callable[[str], None] | None = None
    """Called with the id of each video that is read."""
    faults: Counter[str] = field(default_factory=Counter, init=False, repr=False, compare=False)
    """How many were passed over so far, under the key `rows`."""

    def __post_init__(self) -> None:
        if self.evident and self.evident not in EVIDENT:
            raise InputError(f"option evident is {self.evident!r}; use one of {', '.join(EVIDENT)}")
        if self.level and self.level not in LEVELS:
            raise InputError(f"option level is {self.level!r}; use one of {', '.join(LEVELS)}")
        if self.language and self.language not in ("en", "zh"):
            raise InputError(f"option language is {self.language!r}; use en or zh")
        if self.media_root is not None and not self.media_root.is_dir():
            raise InputError(f"option media_root is {self.media_root}; there is no such folder")

    def fault(self, error: InputError) -> None:
        """Pass a row over, or stop.

        Raises:
            InputError: nobody listens for faults.
        """
        if self.on_fault is None:
            raise error
        self.faults["rows"] += 1
        self.on_fault(str(error))
