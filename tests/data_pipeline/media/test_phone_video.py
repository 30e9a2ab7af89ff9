"""Files as telephones, cameras, browsers and recorders leave them: from import to shards to the frames that the model sees."""

from __future__ import annotations

import random
import tarfile
from collections.abc import Callable

import pytest

from data_pipeline.formats.importing import ImportOptions, import_rows
from data_pipeline.formats.report import ImportReport
from data_pipeline.formats.sharegpt import PLAIN_TAGS, ShareGptFormat
from data_pipeline.media.decode import frames_at, load_frames, probe_video
from data_pipeline.media.resize import fitted_size
from data_pipeline.packing.plan import PlanRules, plan_sample
from data_pipeline.schema import Sample
from data_pipeline.shards.annotations import write_annotations
from data_pipeline.shards.info import read_samples
from data_pipeline.shards.prepare import prepare
from model.errors import InputError
from tests.data_pipeline.formats.test_sharegpt import descriptor
from tests.data_pipeline.helpers import tokenizer
from tests.data_pipeline.media.phone_clips import clip, number_of

FAST = {"preset": "ultrafast", "crf": "10"}
B_FRAMES = {"preset": "veryfast", "bf": "3", "g": "12", "crf": "10"}
VP9 = {"deadline": "realtime", "cpu-used": "8"}
X265 = {"preset": "ultrafast", "x265-params": "log-level=error:pools=1"}
PLAIN = [0, 8, 16]  # of eight frames a second, those at 0, 1 and 2 seconds
LATE = [2.0 + i / 8 for i in range(24)]
EARLY = [-0.5 + i / 8 for i in range(24)]
VARYING = [i / 8 for i in range(8)] + [1.0 + i / 2 for i in range(16)]

CLIPS: dict[str, tuple[Callable[[], bytes], list[int]]] = {
    "turned-90.mp4": (lambda: clip(rotation=90, options=FAST), PLAIN),
    "turned-180.mp4": (lambda: clip(rotation=180, options=FAST), PLAIN),
    "turned-270.mov": (lambda: clip(rotation=270, container="mov", options=FAST), PLAIN),
    "b-frames.mp4": (lambda: clip(options=B_FRAMES), PLAIN),
    "ten-bit.mp4": (lambda: clip(pix_fmt="yuv420p10le", options=FAST), PLAIN),
    "ten-bit-hevc.mp4": (lambda: clip(codec="libx265", pix_fmt="yuv420p10le", options=X265), PLAIN),
    "odd.mp4": (lambda: clip(codec="mpeg4", width=81, height=49, options={"qscale": "2"}), PLAIN),
    "odd.webm": (lambda: clip(codec="libvpx-vp9", container="webm", width=81, height=49, options=VP9), PLAIN),
    "fragments.mp4": (lambda: clip(muxing={"movflags": "frag_keyframe+empty_moov+default_base_moof"}, options=B_FRAMES), PLAIN),
    "streamed.mkv": (lambda: clip(container="matroska", muxing={"live": "1"}, options=FAST), PLAIN),
    "browser.webm": (lambda: clip(codec="libvpx-vp9", container="webm", muxing={"live": "1"}, options=VP9), PLAIN),
    "no-index.avi": (lambda: without_index(clip(codec="mpeg4", container="avi", options={"qscale": "2"})), PLAIN),
    "sound-first.mp4": (lambda: clip(sound_first=True, options=FAST), PLAIN),
    "sound-first.mkv": (lambda: clip(sound_first=True, container="matroska", options=FAST), PLAIN),
    "cover.mp4": (lambda: clip(cover=True, options=FAST), PLAIN),
    "cover.mkv": (lambda: clip(cover=True, container="matroska", options=FAST), PLAIN),
    "late.mp4": (lambda: clip(times=LATE, options=FAST), PLAIN),
    "late.mkv": (lambda: clip(times=LATE, container="matroska", options=FAST), PLAIN),
    "late.ts": (lambda: clip(times=LATE, container="mpegts", options=B_FRAMES), PLAIN),
    "edited.mp4": (lambda: clip(times=EARLY, options=B_FRAMES), [4, 12, 20]),  # players begin at 0 s, with the fifth frame
    "varying.mp4": (lambda: clip(times=VARYING, options=FAST), [0, 8, 10]),
    "varying.mkv": (lambda: clip(times=VARYING, container="matroska", options=FAST), [0, 8, 10]),
    "varying-live.webm": (
        lambda: clip(times=VARYING, codec="libvpx-vp9", container="webm", muxing={"live": "1"}, options=VP9),
        [0, 8, 10],
    ),
}


def without_index(avi: bytes) -> bytes:
    return avi[: avi.rfind(b"idx1")]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Sample, bytes]]:
    """What is stored of every clip: name -> (sample, content of its video)."""
    root = tmp_path_factory.mktemp("phone")
    for name, (make, _) in CLIPS.items():
        (root / name).write_bytes(make())
    talk = [{"role": "user", "content": ""}, {"role": "assistant", "content": "<video><video>it boils<video>"}]
    rows = [{"messages": talk, "videos": descriptor(name, ["00:00", "00:01", "00:02"])} for name in CLIPS]
    options, report = ImportOptions(media_root=root), ImportReport()
    files = options.media_files(root)
    kept = list(import_rows(rows, ShareGptFormat("messages", tags=PLAIN_TAGS), "phone", files, options, report))
    assert not report.dropped, report.examples
    write_annotations(root / "a.jsonl", kept)
    prepare(root / "a.jsonl", root / "shards")
    members = {}
    for path in sorted((root / "shards").glob("*.tar")):
        with tarfile.open(path) as tar:
            members.update({m.name: tar.extractfile(m).read() for m in tar if m.isfile()})  # type: ignore[union-attr]
    stored = [(sample, members[f"{key}.{sample.media[0].file}"]) for key, sample in read_samples(root / "shards")]
    return dict(zip(CLIPS, stored, strict=True))


@pytest.mark.parametrize("name", CLIPS)
def test_the_frames_of_the_markers_are_those_shown_at_their_times(shards: dict[str, tuple[Sample, bytes]], name: str) -> None:
    sample, content = shards[name]
    rules = PlanRules(None, 64, 8, 1.0, 1, 8, jitter=0.0, label_eot_realtime=False)
    slots = plan_sample(sample, tokenizer(), rules, random.Random(0)).slots
    frames = load_frames(content, [s.frame for s in slots], 64, name, [s.time for s in slots])
    width, height = fitted_size(81 if name.startswith("odd") else 80, 49 if name.startswith("odd") else 48, 64)
    upright = frames[:, :, :height, :width].permute(0, 2, 3, 1).numpy()
    assert [number_of(f) for f in upright] == CLIPS[name][1]
    assert frames[:, :, height:].sum() == 0 and frames[:, :, :, width:].sum() == 0


@pytest.mark.parametrize("name", ["sound-first.mkv", "late.mkv", "streamed.mkv", "browser.webm", "fragments.mp4", "cover.mkv"])
def test_the_length_is_that_of_the_pictures_alone(shards: dict[str, tuple[Sample, bytes]], name: str) -> None:
    media = shards[name][0].media[0]
    assert (media.num_frames, media.rate) == (24, 8.0) and media.duration == pytest.approx(3.0, abs=0.01)


@pytest.mark.parametrize("name", ["varying.mp4", "varying.mkv", "varying-live.webm"])
def test_a_varying_rate_is_an_average(shards: dict[str, tuple[Sample, bytes]], name: str) -> None:
    media = shards[name][0].media[0]
    assert media.num_frames == 24 and media.rate is not None and media.duration is not None
    assert media.rate * media.duration == pytest.approx(24, abs=0.01) and 2.7 < media.rate < 2.9


def test_a_recording_that_was_cut_gives_what_it_has_or_is_refused() -> None:
    whole = without_index(clip(60, codec="mpeg4", container="avi", width=320, height=240, options={"qscale": "2", "g": "6"}))
    cut = whole[: len(whole) * 6 // 10]
    frames = frames_at(cut, [0.0, 0.5, 2.0], 64)
    assert [number_of(f[:, :48].permute(1, 2, 0).numpy()) for f in frames] == [0, 4, 16]
    with pytest.raises(InputError, match=r"cannot be decoded whole|wanted frames are missing"):
        frames_at(cut, [i / 8 for i in range(20, 35)], 64)


@pytest.mark.parametrize("content", [clip(container="h264", options=FAST), clip(options=FAST)[:2000]])
def test_a_file_that_tells_no_times_is_refused(content: bytes) -> None:
    with pytest.raises(InputError, match=r"store it again as mp4|cannot be decoded"):
        probe_video(content, "raw.h264")
