"""Still images."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from data_pipeline.media.resize import fit_frames
from model.errors import InputError

Source = str | os.PathLike[str] | bytes
"""A path, or the file's content."""


def load_image(source: Source, size: int, name: str | None = None) -> torch.Tensor:
    """Decode and fit one image: upright, RGB, transparent parts over white.

    Args:
        size: side of the model's square in pixels.
        name: what messages call the image; its path by default.

    Returns:
        uint8 [3, size, size].

    Raises:
        InputError: the file is missing or is not an image.
    """
    pixels = np.asarray(open_image(source, name))
    return fit_frames(torch.from_numpy(pixels.copy())[None], size)[0]


def image_size(source: Source, name: str | None = None) -> tuple[int, int]:
    """(width, height) in pixels, upright."""
    return open_image(source, name).size


def open_image(source: Source, name: str | None = None) -> Image.Image:
    """An RGB image, decoded."""
    label = name or (str(source) if not isinstance(source, bytes) else "image")
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise InputError(f"image {label} does not exist")
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
            return _rgb(ImageOps.exif_transpose(opened))
    except UnidentifiedImageError:  # its own text holds an address in memory, another one in every run
        raise InputError(f"image {label} cannot be decoded: no known image format") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"image {label} cannot be decoded: {error}") from None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        image.load()
        return image
    opaque = image.convert("RGBA")
    white = Image.new("RGBA", opaque.size, (255, 255, 255))
    return Image.alpha_composite(white, opaque).convert("RGB")
