"""The page of the schema: its examples are samples, and it names every field."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.schema import Media, Message, Sample
from data_pipeline.shards.schema import sample_from_dict, sample_to_dict
from data_pipeline.shards.tally import shape

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "data-schema.md").read_text(encoding="utf-8")
EXAMPLES = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, flags=re.DOTALL)]
SHAPES = ["text", "image", "multi_image", "video", "interleaved", "realtime", "event_captions", "dense"]


@pytest.mark.parametrize(("values", "expected"), list(zip(EXAMPLES, SHAPES, strict=True)), ids=SHAPES)
def test_examples_are_sound_and_survive(values: dict[str, Any], expected: str) -> None:
    sample = sample_from_dict(values)
    assert sample_to_dict(sample) == values and shape(sample) == expected


@pytest.mark.parametrize("kind", [Sample, Message, Media])
def test_every_field_has_its_row(kind: Any) -> None:
    section = PAGE.split(f"\n## {kind.__name__}\n")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE) == [f.name for f in dataclasses.fields(kind)]
