"""Clips with subtitles as streaming captions."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.formats.importing import ImportOptions
from data_pipeline.formats.report import ImportReport, RowError
from data_pipeline.formats.subtitle_clips import caption_events, import_subtitles
from data_pipeline.formats.subtitles import Cue
from data_pipeline.media.sampling import event_counts
from data_pipeline.packing.plan import PlanRules, plan_sample
from data_pipeline.shards.annotations import Annotation, read_annotations
from data_pipeline.shards.prepare import prepare
from model.errors import InputError
from moss_train.cli.main import main
from tests.data_pipeline.helpers import grey_levels, make_video, tokenizer


def srt(*cues: tuple[float, float, str]) -> str:
    return "\n\n".join(f"{i}\n00:00:{b:06.3f} --> 00:00:{e:06.3f}\n{t}" for i, (b, e, t) in enumerate(cues, start=1))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "day").mkdir()
    (tmp_path / "day" / "boil.mp4").write_bytes(make_video(grey_levels(12), rate=2))  # six seconds
    cues = (0.2, 1.5, "water"), (2.0, 2.4, "is"), (2.4, 2.9, "boiling"), (3, 4, "now")
    (tmp_path / "day" / "boil.en.srt").write_text(srt(*cues))
    return tmp_path


def load(source: Path, language: str | None = None) -> tuple[list[Annotation], ImportReport]:
    report = ImportReport()
    return list(import_subtitles(source, ImportOptions(), report, language)), report


def test_a_cue_is_said_at_its_end(data: Path) -> None:
    kept, report = load(data)
    sample = kept[0].sample
    assert report.kept == 1 and not report.dropped
    said = "<|video|>water<|silence|><|video|>is boiling<|silence|><|video|>now<|silence|><|video|><|silence|>"
    assert sample.messages[1].content == said
    assert kept[0].key == f"{data.name}-000000"
    assert sample.kind == "realtime" and sample.media[0].markers == "per_event"
    assert sample.media[0].frame_times == [1.5, 2.9, 4.0, 6.0]
    assert sample.meta["language"] == "en" and sample.meta["cues"][0] == [0.2, 1.5, "water"]


def test_from_the_command_to_planned_rows(data: Path) -> None:
    assert main(["data", "import", str(data / "day" / "boil.mp4"), str(data / "a.jsonl"), "--format", "subtitles"]) == 0
    prepare(data / "a.jsonl", data / "shards")
    annotation = next(read_annotations(data / "a.jsonl"))
    rules = PlanRules(None, 256, 16, 1.0, 1, 2, jitter=1.0, label_eot_realtime=False)  # a clip is never thinned to two frames
    plan = plan_sample(annotation.sample, tokenizer(), rules, random.Random(0))
    assert [s.time for s in plan.slots] == [0, 1, 2, 3, 4, 5]
    assert plan.rows.visible_frames[-1] == 6 and (plan.rows.frame_rows[1:] > plan.rows.frame_rows[:-1]).all()
    runs = (plan.rows.frame_rows[1:] - plan.rows.frame_rows[:-1] == 1).tolist()
    assert runs == [True, False, False, True, False]  # 0 and 1 before water; 2 before is boiling; 3, 4; then the rest


def test_languages_and_what_has_no_partner(data: Path) -> None:
    day = data / "day"
    (day / "boil.de.vtt").write_text("WEBVTT\n\n00:01.000 --> 00:02.000\nWasser")
    (day / "boil.de.srt").write_text(srt((1, 2, "Wasser!")))
    (day / "alone.MP4").write_bytes((day / "boil.mp4").read_bytes())
    kept, report = load(data)
    assert [a.sample.meta["language"] for a in kept] == ["de", "en"] and "Wasser!" in kept[0].sample.messages[1].content
    assert dict(report.dropped) == {"a second file of the same language": 1, "clip without subtitles": 1}
    assert [a.sample.meta["language"] for a in load(data, "en")[0]] == ["en"]
    with pytest.raises(InputError, match=r"no clip of .* can be used: clip without subtitles \(2\).*of language fr"):
        load(data, "fr")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "boil.en.srt",
            srt((1, 2, "a"), (7, 8, "b")).encode(),
            "a cue is behind the end of the video .*lasts 6 s.* from 7",
        ),
        ("boil.en.srt", srt((1, 7.5, "a")).encode(), "a cue is behind the end of the video"),
        ("boil.en.srt", b"\xff", r"subtitles cannot be read \(1\).*not UTF-8"),
        ("boil.mp4", b"", r"media file cannot be decoded"),
    ],
)
def test_what_cannot_be_used_is_told(data: Path, name: str, content: bytes, message: str) -> None:
    (data / "day" / name).write_bytes(content)
    with pytest.raises(InputError, match=f"no clip of .* can be used: .*{message}"):
        load(data)


def test_a_cue_may_hang_over_the_last_frame(data: Path) -> None:
    (data / "day" / "boil.en.srt").write_text(srt((1, 6.5, "a")))
    assert load(data)[0][0].sample.media[0].frame_times == [6.0]


def test_a_source_without_clips_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no clip"):
        load(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        load(tmp_path / "gone.mp4")


cue = st.tuples(st.integers(0, 9900), st.integers(0, 3000)).map(lambda t: Cue(t[0] / 1000, min(10.0, sum(t) / 1000), "word"))


@given(cues=st.lists(cue, min_size=1, max_size=12), fps=st.sampled_from([0.5, 1.0, 2.0]))
def test_every_event_has_frames_and_no_word_is_lost(cues: list[Cue], fps: float) -> None:
    times = [i / fps for i in range(int(10 * fps))]
    ends, texts = caption_events(cues, times, 10.0)
    counts = event_counts(times, ends)  # raises for an event without a frame
    assert sum(counts) == len(times) and len(counts) == len(texts)
    assert " ".join(filter(None, texts)).split() == ["word"] * len(cues)
    with pytest.raises(RowError, match="lasts 5 s"):
        caption_events([*cues, Cue(6.0, 7.0, "late")], times, 5.0)
