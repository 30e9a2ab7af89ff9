"""Writing the page."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path

from data_pipeline.inspect.preview.preview import Preview

SCRIPT = """
for (const article of document.querySelectorAll("article")) {
  const frames = article.querySelectorAll("[data-frame]");
  article.addEventListener("mouseover", event => {
    const row = event.target.closest("[data-visible]");
    for (const frame of frames) frame.classList.toggle("hidden", !!row && +frame.dataset.frame >= +row.dataset.visible);
  });
  article.addEventListener("mouseleave", () => frames.forEach(frame => frame.classList.remove("hidden")));
}
"""
"""An addition only: dims the frames that the row under the pointer does not see. The rows' titles say it too."""


def write_page(out: Path, found: Preview, title: str, facts: list[tuple[str, str]]) -> None:
    """Write one self-contained HTML file, whole or not at all.

    Args:
        facts: name and value of the stage's settings, shown under the title.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=PackageLoader("data_pipeline.inspect.preview", "."),
        autoescape=select_autoescape(["html", "j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    page = environment.get_template("page.html.j2").render(
        title=title, facts=facts, found=found, script=SCRIPT, script_digest=digest
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(page, encoding="utf-8")
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
