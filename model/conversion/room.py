"""Room on the disk: asked for before a long write, and one sentence where it runs out all the same."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from model.errors import InputError

MARGIN_BYTES = 32 << 20
"""Left for configs, tokenizers and the file system's own needs."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check_room(target: Path, needed: int) -> None:
    """Refuses a write that cannot end well.

    Args:
        target: what will be written; the nearest folder above it that exists names the disk.
        needed: bytes.

    Raises:
        InputError: fewer bytes are free.
    """
    place = target.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed + MARGIN_BYTES:
        raise InputError(
            f"{target} needs {needed / 1e9:.2f} GB and its disk has {free / 1e9:.2f} GB free; make room or choose another folder"
        )


@contextmanager
def filling(target: Path) -> Iterator[None]:
    """Turns the errors of a disk that is full, or of a file that may not grow, into one sentence about `target`.

    Raises:
        InputError: the disk, the quota or the largest size of a file was reached.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise InputError(
            f"{target} cannot be written: {error.strerror}; nothing of it was kept, make room or choose another folder"
        ) from error
