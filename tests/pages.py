"""What tests read out of a page: its blocks by language, and the commands in those that have none."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path


def blocks(page: Path, language: str | None = None) -> list[str]:
    """The contents of a page's fenced blocks; with a language those of it, "" for the ones that name none."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [content for name, content in found if language is None or name == language]


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each command line in a page's blocks, those left out that hold `...` or lines of other programs."""
    for block in blocks(page):
        for line in block.replace("\\\n", " ").splitlines():
            if not re.match(r"moss |python -m inference\.", line) or " ..." in line:
                continue
            for part in re.split(r"\s&&\s", line):
                yield [word for word in shlex.split(part, comments=True) if word]
