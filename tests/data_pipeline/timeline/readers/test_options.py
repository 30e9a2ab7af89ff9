"""Options are checked before anything is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data_pipeline.timeline.readers.options import ReadOptions
from model.errors import InputError


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"evident": "late"}, "evident is 'late'; use one of begin, middle, end"),
        ({"level": "scene"}, "level is 'scene'; use one of video"),
        ({"language": "fr"}, "language is 'fr'; use en or zh"),
        ({"media_root": Path("/none/at/all")}, "media_root is /none/at/all; there is no such folder"),
    ],
)
def test_options(option: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ReadOptions(**option)
