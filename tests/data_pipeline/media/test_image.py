"""Still images."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from data_pipeline.media.image import image_size, load_image
from model.errors import InputError
from tests.data_pipeline.helpers import make_image


def encoded(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def test_an_image_is_fitted_and_padded() -> None:
    pixels = load_image(make_image(40, 20, (200, 30, 10)), 64)
    assert pixels.shape == (3, 64, 64)
    assert pixels[:, 10, 10].tolist() == [200, 30, 10] and pixels[:, 32:].sum() == 0


def test_transparent_parts_lie_over_white() -> None:
    pixels = load_image(encoded(Image.new("RGBA", (8, 8), (255, 0, 0, 0))), 16)
    assert pixels[:, 4, 4].tolist() == [255, 255, 255]


@pytest.mark.parametrize("mode", ["L", "P", "LA", "1", "CMYK"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = Image.new("RGB", (8, 8), (255, 255, 255)).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "TIFF" if mode == "CMYK" else "PNG")
    assert load_image(buffer.getvalue(), 16)[:, 4, 4].tolist() == [255, 255, 255]


def test_the_camera_s_orientation_is_followed() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    assert image_size(encoded(Image.new("RGB", (40, 20)), exif=exif)) == (20, 40)


def test_bad_images_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cat\.jpg cannot be decoded: no known image format$"):
        load_image(b"not an image", 16, "cat.jpg")
    with pytest.raises(InputError, match=r"cat\.png cannot be decoded"):
        load_image(make_image()[:60], 16, "cat.png")
    with pytest.raises(InputError, match="does not exist"):
        load_image(tmp_path / "none.png", 16)
