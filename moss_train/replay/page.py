"""The page of a replayed step: one HTML file without anything from elsewhere."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from PIL import Image

from moss_train.replay.views import StepView, TokenRow

THUMBNAIL = 128
"""Pixels of a frame on the page."""
_FULL = 6.0
"""Loss at which a token's mark is darkest."""


def write_page(out: Path, view: StepView, frames: Mapping[int, torch.Tensor]) -> None:
    """Write the page, whole or not at all.

    Args:
        frames: uint8 [F, 3, size, size] of each micro-batch.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=PackageLoader("moss_train.replay", "."),
        autoescape=select_autoescape(["html", "j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pictures = {number: [thumbnail(pixels) for pixels in of] for number, of in frames.items()}
    page = environment.get_template("page.html.j2").render(view=view, pictures=pictures, title_of=title_of, shade=shade)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(page, encoding="utf-8")
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)


def thumbnail(pixels: torch.Tensor) -> str:
    """uint8 [3, size, size] as the data URI of a JPEG."""
    picture = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    if picture.width > THUMBNAIL:
        picture = picture.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def title_of(token: TokenRow) -> str:
    """What a token's note says."""
    begin, end = token.visible
    seen = "sees no frame" if begin >= end else f"sees frames {begin} to {end - 1}"
    learned = "not learned" if token.token_class == "ignored" else f"learned: {token.token_class.replace('_', ' ')}"
    loss = "" if token.loss is None else f" · loss {token.loss:.4f}"
    return f"row {token.row} · id {token.id} · {learned} · {seen}{loss}"


def shade(loss: float) -> str:
    """Style of a token by its loss."""
    return f"border-bottom: 3px solid rgba(192, 57, 43, {min(max(loss, 0.0) / _FULL, 1.0):.2f})"
