"""The page and its numbers, from a build folder."""

from __future__ import annotations

import json
import os
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from data_pipeline.generator.card import write_card
from data_pipeline.realtime.dialogue import BEHAVIOURS
from model.errors import InputError
from moss_train.cli.main import main
from tests.data_pipeline.generator.card.builds import laid_out, tally_of, write_build, write_part

VOID = {"meta", "img", "br", "rect", "line", "link", "input"}


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_build(tmp_path_factory.mktemp("build") / "sample")


class _Page(HTMLParser):
    """Tags that are opened and closed in order, links to elsewhere, pictures and header cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        if tag == "img":
            self.pictures.append(values)
        self.links += [values[name] or "" for name in ("src", "href") if name in values]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_sound_and_needs_nothing_else(build: Path, tmp_path: Path) -> None:
    card = write_card(build, tmp_path / "page.html")
    page = _Page(card.page.read_text())
    assert page.open == []
    assert "script" not in page.tags and "link" not in page.tags
    assert all(link.startswith("data:image/jpeg;base64,") for link in page.links)
    assert len(page.pictures) == 16 * card.shown and all(one["alt"] for one in page.pictures)
    assert card.shown == 6 and card.rows == 9
    for said in (
        "Splits train and test share no split key",
        "cut off",
        "corrects #2",
        "colour:ball",
        "near-duplicate",
        "CC BY 4.0",
    ):
        assert said in page.text
    assert card.size < 1_000_000


def test_the_numbers_are_those_of_the_parts(build: Path, tmp_path: Path) -> None:
    numbers = json.loads(write_card(build, tmp_path / "page.html").numbers.read_text())
    assert numbers["totals"]["rows"] == 9 and numbers["splits"]["test"]["rows"] == 1
    assert numbers["tried"] == 16 and numbers["left_out_rows"] == {"nearly the same as another row": 1}
    assert numbers["left_out_videos"] == {"in a decontamination list by name": 3}
    assert numbers["build"]["seconds"] == 4.2 and numbers["build"]["kept"] == {"train": 7, "test": 1}
    assert numbers["rejections"][0]["count"] == 2 and numbers["rejections"][-1]["stage"] == "decontamination"
    assert numbers["shared_split_keys"] == {"train and test": 0}
    assert numbers["behaviours"]["silence_only"]["silence_ratio"] == 1.0
    assert numbers["cost"]["plan"]["calls"] == 12
    assert numbers["answer_balance"]["largest_share"] == 0.5 and numbers["answer_balance"]["entropy_bits"] == 1.0


def test_shared_split_keys_are_told(build: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    shutil.copytree(build, folder)
    rows = [laid_out("again", split_key="train-0-0")]
    write_part(folder / "parts" / "test" / "000001", rows, tally_of(*rows), media=False)
    card = write_card(folder, tmp_path / "page.html")
    assert json.loads(card.numbers.read_text())["shared_split_keys"] == {"train and test": 1}
    assert "share 1 split keys" in card.page.read_text()


def test_the_same_seed_shows_the_same_rows(build: Path, tmp_path: Path) -> None:
    pages = []
    for seed in (1, 1, 2, 3):
        write_card(build, tmp_path / "page.html", seed=seed)
        pages.append((tmp_path / "page.html").read_bytes())
    assert pages[0] == pages[1]
    assert len(set(pages)) > 1


def test_an_unfinished_build_has_a_card(build: Path, tmp_path: Path) -> None:
    folder = tmp_path / "unfinished"
    shutil.copytree(build, folder)
    (folder / "build.json").unlink()
    (folder / "parts" / "train" / "000001" / "part.json").unlink()
    card = write_card(folder, folder / "report.html")
    assert card.rows == 5 and card.numbers == folder / "card.json"
    assert "has not come to its end" in card.page.read_text()


def test_videos_that_are_not_there_or_no_videos_are_told(build: Path, tmp_path: Path) -> None:
    folder = tmp_path / "without"
    shutil.copytree(build, folder)
    shutil.rmtree(folder / "parts" / "train" / "000000" / "media")
    for video in (folder / "parts" / "train" / "000001" / "media").iterdir():
        video.write_bytes(b"no video")
    text = write_card(folder, tmp_path / "page.html", rows_each=4).page.read_text()
    assert "is not in the build folder" in text and "cannot be shown" in text


def test_words_of_a_row_are_text_not_markup(tmp_path: Path) -> None:
    row = laid_out("<b>bold</b>", source='"><script>alert(1)</script>', language="en")
    write_part(tmp_path / "b" / "parts" / "train" / "000000", [row], tally_of(row), media=False)
    page = _Page(write_card(tmp_path / "b", tmp_path / "page.html").page.read_text())
    assert "script" not in page.tags and "b" not in page.tags


@pytest.mark.parametrize("damage", ["{", "[]", "{}", '{"tally": {"version": 1}}'])
def test_damaged_parts_are_named_and_nothing_is_written(build: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(build, folder)
    (folder / "parts" / "train" / "000001" / "part.json").write_text(damage)
    with pytest.raises(InputError, match=r"train/000001/part\.json"):
        write_card(folder, tmp_path / "page.html")
    assert os.listdir(tmp_path) == ["damaged"]


def test_folders_that_are_no_builds_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        write_card(tmp_path / "nothing", tmp_path / "page.html")
    with pytest.raises(InputError, match="holds no finished part"):
        write_card(tmp_path, tmp_path / "page.html")


def test_the_command(build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "card", str(build), "--out", str(tmp_path / "card.html"), "--rows", "1"]) == 0
    assert "9 rows, 3 of them shown" in capsys.readouterr().out
    assert main(["data", "card", str(build), "--out", str(tmp_path)]) == 2
    assert main(["data", "card", str(build), "--rows", "99"]) == 2
    assert "--rows is 99" in capsys.readouterr().err
    assert not (build / "report.html").exists()


def test_many_rows_with_all_behaviours_stay_small_and_quick(tmp_path: Path) -> None:
    frames = tuple(i / 4 for i in range(400))
    rows = [laid_out(f"r{i}", frame_times=frames, fps=4.0, behaviours=(BEHAVIOURS[i % 12],)) for i in range(60)]
    write_part(tmp_path / "b" / "parts" / "train" / "000000", rows, tally_of(*rows), media=False)
    card = write_card(tmp_path / "b", tmp_path / "page.html")
    assert card.shown == 24 and card.size < 5_000_000
