"""Templates of pages, and files that appear whole."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def render(template: str, **values: Any) -> str:
    """A page from a template of this folder; texts are escaped."""
    from jinja2 import Environment, PackageLoader, select_autoescape

    environment = Environment(loader=PackageLoader("moss_train.report", "."), autoescape=select_autoescape(["html", "j2"]))
    return environment.get_template(template).render(**values)


def write_text(path: Path, text: str) -> None:
    """Write a file atomically, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
