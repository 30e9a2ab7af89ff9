"""The page shows what the loader makes of a sample, token for token, and nothing from outside."""

from __future__ import annotations

import base64
import io
import random
import re
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipeline.inspect.preview.page import write_page
from data_pipeline.inspect.preview.preview import PreviewSettings, preview
from data_pipeline.loader.frames import decode_slots
from data_pipeline.loader.plan_rules import plan_rules
from data_pipeline.packing.batch import IGNORE_INDEX
from data_pipeline.packing.plan import plan_sample
from data_pipeline.packing.select import select_packs
from data_pipeline.schema import Sample
from data_pipeline.shards import write_samples
from data_pipeline.text.labels import FIRST_ANSWER, IGNORED, SILENCE, TEXT
from model.errors import InputError
from tests.data_pipeline.helpers import image_sample, realtime_sample, stage_config, text_sample, tokenizer, video_sample

TOKENIZER = tokenizer()
SIZE = 64
SETTINGS = PreviewSettings(plan_rules(stage_config(realtime_jitter_prob=0.5)), TOKENIZER, SIZE, seed=3)
CLASSES = {"ignored": IGNORED, "text": TEXT, "silence": SILENCE, "first_answer": FIRST_ANSWER}


@dataclass
class Page(HTMLParser):
    """What a browser would read."""

    rows: list[dict[str, str]] = field(default_factory=list)
    frames: list[dict[str, str]] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    attributes: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.attributes += values.items()
        if "data-row" in values:
            self.rows.append({**values, "text": "", "tag": tag})
        if "data-frame" in values:
            self.frames.append({**values, "caption": ""})
        if tag == "img":
            self.frames[-1]["src"] = values["src"]

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] in ("span", "a") and self.rows:
            self.rows[-1]["text"] += data
        if self.tags and self.tags[-1] == "figcaption":
            self.frames[-1]["caption"] += data

    def handle_endtag(self, tag: str) -> None:
        self.tags.append("/" + tag)


def page_of(tmp_path: Path, made: list[tuple[str, Sample, dict[str, bytes]]], packed: int = 0) -> tuple[Page, str]:
    write_samples(tmp_path / "set", made, samples_per_shard=2)
    out = tmp_path / "page.html"
    write_page(out, preview(str(tmp_path / "set"), SETTINGS, samples=len(made), packed=packed), "Samples", [("stage", "test")])
    page = Page()
    page.feed(out.read_text(encoding="utf-8"))
    return page, out.read_text(encoding="utf-8")


@pytest.mark.parametrize("make", [video_sample, image_sample, text_sample, realtime_sample])
def test_tokens_masks_and_frames_are_the_loader_s(tmp_path: Path, make: object) -> None:
    key, sample, members = make(7)  # type: ignore[operator]
    page, _ = page_of(tmp_path, [(key, sample, members)])  # writing fills in what the headers say
    plan = plan_sample(sample, TOKENIZER, SETTINGS.rules, random.Random(f"3/{key}"))
    assert [int(row["data-row"]) for row in page.rows] == list(range(plan.num_rows))
    learned = [row["data-class"] != "ignored" for row in page.rows]
    assert learned == [label != IGNORE_INDEX for label in plan.rows.labels]
    assert [CLASSES[row["data-class"]] for row in page.rows][1:] == plan.classes[:-1].tolist()
    assert [int(row["data-visible"]) for row in page.rows] == plan.rows.visible_frames.tolist()
    places = [int(row["data-row"]) for row in page.rows if row["tag"] == "a"]
    assert places == plan.rows.frame_rows.tolist()
    words = "".join(row["text"] for row in page.rows if row["tag"] == "span")
    assert words == TOKENIZER.decode(i for i in plan.rows.input_ids if i != TOKENIZER.image_id)

    assert [f["caption"] for f in page.frames] == [f"frame {i} · {slot.time:g} s" for i, slot in enumerate(plan.slots)]
    for frame, pixels in zip(page.frames, decode_slots(plan.slots, sample.media, members, SIZE, key), strict=True):
        picture = Image.open(io.BytesIO(base64.b64decode(frame["src"].removeprefix("data:image/jpeg;base64,"))))
        difference = np.asarray(picture, dtype=np.int16) - pixels.permute(1, 2, 0).numpy().astype(np.int16)
        assert picture.size == (SIZE, SIZE) and np.abs(difference).mean() < 4  # JPEG's own loss


def test_frame_marks_lead_to_their_pictures(tmp_path: Path) -> None:
    page, text = page_of(tmp_path, [video_sample(0), realtime_sample(1), image_sample(2)])
    targets = {frame["id"] for frame in page.frames}
    marks = [row for row in page.rows if row["tag"] == "a"]
    assert len(targets) == len(page.frames) == len(marks) == 9
    assert {row["href"].removeprefix("#") for row in marks} == targets
    assert "sees frames 0 to 3" in text and "sees no frame" in text


def test_timed_dialogues_are_laid_out_second_by_second(tmp_path: Path) -> None:
    key, sample, members = realtime_sample(0)
    sample.messages[0].content = "start"
    sample.messages[1].content = "<|video|><|silence|><|video|>the ball<|silence|>"
    sample.messages += [type(sample.messages[0])(role="user", content="and now ?")]
    sample.messages += [type(sample.messages[0])(role="assistant", content="<|video|>blue<|video|><|silence|>")]
    write_samples(tmp_path / "set", [(key, sample, members)])
    steady = replace(SETTINGS, rules=plan_rules(stage_config(realtime_jitter_prob=0.0)))
    (view,) = preview(str(tmp_path / "set"), steady, keys=[key]).samples
    assert [(c.frame, c.said.strip(), c.silent, c.prompt) for c in view.columns] == [
        (0, "", True, ""),
        (1, "the ball", True, ""),
        (None, "", False, "and now ?"),
        (2, "blue", False, ""),
        (3, "", True, ""),
    ]


def test_hostile_text_stays_text_and_nothing_is_fetched(tmp_path: Path) -> None:
    evil = """</div><script>a()</script><img src=//x.y onerror=b()>'"><a href="javascript:c()">"""
    key, sample, members = text_sample(0)
    sample.messages[1].content = evil
    sample.dataset = sample.source = sample.license = evil
    page, text = page_of(tmp_path, [(key, sample, members), video_sample(1)], packed=2)
    assert page.tags.count("script") == 1 and page.tags.count("img") == len(page.frames) == 4
    links = [value for name, value in page.attributes if name in ("src", "href", "action", "data", "srcset")]
    assert links and all(value.startswith(("data:image/jpeg;base64,", "#")) for value in links)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "@import" not in text and not re.search(r"url\(|<link", text)
    assert "".join(row["text"] for row in page.rows if row["tag"] == "span").count(evil) == 1


def test_packs_are_those_of_the_loader_s_rule(tmp_path: Path) -> None:
    made = [video_sample(0), realtime_sample(1), text_sample(2), image_sample(3), text_sample(4)]
    write_samples(tmp_path / "set", made)
    packs = preview(str(tmp_path / "set"), SETTINGS, samples=1, packed=5).packs
    sizes = {}
    for key, sample, _ in made:
        plan = plan_sample(sample, TOKENIZER, SETTINGS.rules, random.Random(f"3/{key}"))
        sizes[key] = (plan.num_rows, plan.num_frames)
    expected = select_packs(list(sizes.values()), 128, 12)
    assert [[s.key for s in pack.segments] for pack in packs] == [[list(sizes)[i] for i in pack] for pack in expected]
    assert all(sum(s.rows for s in pack.segments) + pack.free_rows == 128 for pack in packs)
    assert all(sum(s.frames for s in pack.segments) + pack.free_frames == 12 for pack in packs)


def test_samples_that_are_left_out_say_why(tmp_path: Path) -> None:
    key, sample, members = video_sample(0)
    sample.messages[1].content = "long " * 300
    dialogue = realtime_sample(1)
    dialogue[1].messages[1].content = "<|video|>" * 4
    page, text = page_of(tmp_path, [(key, sample, members), dialogue])
    assert "The loader would leave this sample out: no learned token is left" in text
    assert len(page.rows) == 128  # the other is cut to the stage's length


def test_unknown_keys_are_named(tmp_path: Path) -> None:
    write_samples(tmp_path / "set", [text_sample(0)])
    with pytest.raises(InputError, match=r"has no sample nobody; `moss data info"):
        preview(str(tmp_path / "set"), SETTINGS, keys=["t0000", "nobody"])
