"""Results without the folders of the machine that made them."""

from __future__ import annotations

import re
from typing import Any

_PATH = re.compile(r"(?<![\w.:/~-])/(?!dev/)(?:[\w.+@%=-]+/)+([\w.+@%=-]*)")
"""An absolute path of two names or more; /dev stays, since a folder in memory is no folder of a machine."""


def without_folders(value: Any) -> Any:
    """The same value with `/a/b/c.py` as `c.py` in every string of it, whatever it is made of; keys stay."""
    if isinstance(value, str):
        return _PATH.sub(lambda match: match[1] or match[0].rstrip("/").rsplit("/", 1)[-1], value)
    if isinstance(value, dict):
        return {key: without_folders(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_folders(item) for item in value]
    return value
