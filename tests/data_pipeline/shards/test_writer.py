"""Writing dataset folders."""

from __future__ import annotations

import json
import tarfile
import tempfile
from pathlib import Path

import pytest
import webdataset
from hypothesis import event, given, settings
from hypothesis import strategies as st

from data_pipeline.schema import Media, Message, Sample
from data_pipeline.shards import write_samples
from data_pipeline.shards.info import check_shards, read_samples, read_summary
from model.errors import InputError
from tests.data_pipeline.helpers import image_sample, text_sample, video_sample


def write(folder: Path, count: int = 5, **options: object) -> dict[str, object]:
    return write_samples(folder, (video_sample(i) for i in range(count)), samples_per_shard=2, **options)  # type: ignore[arg-type]


def test_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a"), write(tmp_path / "b")
    assert first == second and list(first["shards"]) == [f"shard-00000{i}.tar" for i in range(3)]  # type: ignore[call-overload]
    for name in first["shards"]:  # type: ignore[attr-defined]
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    uuids = [(tmp_path / n / ".nv-meta" / "index.uuid").read_text() for n in "ab"]
    assert uuids[0] == uuids[1]


def test_members_are_the_json_and_the_media(tmp_path: Path) -> None:
    write(tmp_path / "a", 2)
    with tarfile.open(tmp_path / "a" / "shard-000000.tar") as tar:
        assert tar.getnames() == ["v0000.0.mp4", "v0000.json", "v0001.0.mp4", "v0001.json"]
        assert tar.extractfile("v0001.0.mp4").read() == video_sample(1)[2]["0.mp4"]  # type: ignore[union-attr]


def test_what_the_loader_must_know_is_filled_in(tmp_path: Path) -> None:
    write(tmp_path / "a", 1)
    write_samples(tmp_path / "b", [image_sample(0)])
    clip = next(read_samples(tmp_path / "a"))[1].media[0]
    assert (clip.width, clip.height, clip.rate, clip.duration, clip.num_frames) == (64, 48, 8.0, 0.5, 4)
    still = next(read_samples(tmp_path / "b"))[1].media[0]
    assert (still.width, still.height, still.num_frames) == (40, 30, None)


def test_the_summary_counts(tmp_path: Path) -> None:
    write_samples(tmp_path / "a", [video_sample(0), text_sample(1), text_sample(2)])
    summary = read_summary(tmp_path / "a")
    assert summary["samples"] == 3 and summary["kinds"] == {"text": 2, "video": 1} and summary["media"] == {"video": 1}
    assert summary["video_seconds"] == 0.5


def test_a_changed_or_missing_shard_is_noticed(tmp_path: Path) -> None:
    write(tmp_path / "a")
    assert check_shards(tmp_path / "a") == []
    (tmp_path / "a" / "shard-000000.tar").unlink()
    with (tmp_path / "a" / "shard-000001.tar").open("ab") as file:
        file.write(b"x")
    faults = check_shards(tmp_path / "a")
    assert len(faults) == 2 and "000000.tar is missing" in faults[0] and "000001.tar was changed" in faults[1]


def test_a_folder_is_not_replaced_unless_asked(tmp_path: Path) -> None:
    write(tmp_path / "a")
    with pytest.raises(InputError, match="exists already"):
        write(tmp_path / "a")
    assert write(tmp_path / "a", 1, overwrite=True)["samples"] == 1
    assert len(list((tmp_path / "a").glob("*.tar"))) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a"]


def test_overwriting_takes_dataset_folders_only(tmp_path: Path) -> None:
    """A folder of datasets, or of the media themselves, must not go for the mistake of a path."""
    write(tmp_path / "shards" / "video")
    (tmp_path / "shards" / "film.mp4").write_bytes(b"do not lose me")
    with pytest.raises(InputError, match=r"shards holds film\.mp4, which is no part of a dataset folder"):
        write(tmp_path / "shards", 1, overwrite=True)
    assert (tmp_path / "shards" / "film.mp4").exists() and (tmp_path / "shards" / "video" / "summary.json").exists()


UNUSABLE = {
    "": "not empty and without a dot",
    "a.b": "not empty and without a dot",
    "a\n": "must be printable",
    "a/": "neither begin nor end with /",
    "/a": "neither begin nor end with /",
    "__a__/b": "nor begin with a folder __NAME__",
    "k" * 96: "a name in a tar holds 100 bytes",
    "v0000": "two samples have the key 'v0000'",
}


@pytest.mark.parametrize("key", UNUSABLE)
def test_unusable_keys_are_refused_and_leave_nothing(tmp_path: Path, key: str) -> None:
    _, sample, members = text_sample(0)
    with pytest.raises(InputError, match=UNUSABLE[key]):
        write_samples(tmp_path / "a", [video_sample(0), (key, sample, members)])
    assert list(tmp_path.iterdir()) == []


@given(st.text(st.sampled_from("a_-/. é\n"), max_size=12))
@settings(max_examples=40, deadline=None)
def test_a_key_that_is_taken_is_read_again(key: str) -> None:
    """By plain webdataset and in Energon's index, whatever it is made of."""
    _, sample, members = text_sample(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "a"
        try:
            write_samples(folder, [(key, sample, members), ("z", sample, members)])
        except InputError:
            event("refused")
            return
        event("taken")
        read = [found["__key__"] for found in webdataset.WebDataset(str(folder / "shard-000000.tar"), shardshuffle=False)]
        counted = json.loads((folder / ".nv-meta" / ".info.json").read_text())["shard_counts"]
        assert read == [key, "z"] and counted == {"shard-000000.tar": 2}


def test_here_is_a_folder_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    assert write(Path("."))["samples"] == 5
    assert (tmp_path / "a" / "summary.json").is_file() and [p.name for p in tmp_path.iterdir()] == ["a"]


def test_bad_media_are_named(tmp_path: Path) -> None:
    key, sample, _ = video_sample(0)
    with pytest.raises(InputError, match=r"sample v0000 names the media file 0\.mp4 but no such content"):
        write_samples(tmp_path / "a", [(key, sample, {})])
    with pytest.raises(InputError, match=r"video v0000\.0\.mp4 cannot be decoded"):
        write_samples(tmp_path / "a", [(key, sample, {"0.mp4": b"junk"})])


def test_an_unsound_sample_is_named(tmp_path: Path) -> None:
    sample = Sample(kind="video", messages=[Message(role="user", content="")], media=[Media(type="image", file="0.png")])
    with pytest.raises(InputError, match="sample x"):
        write_samples(tmp_path / "a", [("x", sample, {"0.png": image_sample(0)[2]["0.jpg"]})])


def test_nothing_to_write_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no sample"):
        write_samples(tmp_path / "a", [])


def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a dataset folder"):
        read_summary(tmp_path)
