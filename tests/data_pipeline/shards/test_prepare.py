"""Preparing shards: the same bytes whatever the number of workers and however often it was stopped."""

from __future__ import annotations

import json
import multiprocessing
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.media.decode import probe_video
from data_pipeline.shards import write_samples
from data_pipeline.shards.annotations import read_annotations
from data_pipeline.shards.info import check_shards, read_samples
from data_pipeline.shards.partial import finished_groups, partial_folder
from data_pipeline.shards.plan import PrepareOptions
from data_pipeline.shards.prepare import prepare
from data_pipeline.shards.transcode import TranscodeSettings
from model.errors import InputError
from moss_train.cli.main import main
from tests.data_pipeline.helpers import make_video, text_sample, video_sample
from tests.data_pipeline.shards.annotated import annotate, killed_at, tars

SMALL = PrepareOptions(samples_per_shard=3, shuffle_seed=1)


def keys(folder: Path) -> list[str]:
    return [key for key, _ in read_samples(folder)]


def test_the_tars_are_those_of_the_writer(tmp_path: Path) -> None:
    source = annotate(tmp_path / "in", 8)
    lines = [(a.key, a.sample, {n: p.read_bytes() for n, p in a.files.items()}) for a in read_annotations(source)]
    summary = prepare(source, tmp_path / "a", PrepareOptions(samples_per_shard=3))
    plain = write_samples(tmp_path / "b", lines, samples_per_shard=3)
    assert {name: summary[name] for name in plain} == plain
    for name in plain["shards"]:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert check_shards(tmp_path / "a") == [] and not partial_folder(tmp_path / "a").exists()


def test_media_are_described_as_they_are_now_and_not_as_they_were_imported(tmp_path: Path) -> None:
    source = annotate(tmp_path / "in", 2)
    lines = [json.loads(line) for line in source.read_text().splitlines()]
    for line in lines:
        line["media"][0].update(width=7, height=9)
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    prepare(source, tmp_path / "a")
    kinds = {s.media[0].type: (s.media[0].width, s.media[0].height) for _, s in read_samples(tmp_path / "a")}
    assert set(kinds) == {"image", "video"} and (7, 9) not in kinds.values()
    image = next(a for a in read_annotations(source) if a.sample.media[0].type == "image")
    image.files[image.sample.media[0].file].write_bytes(b"no picture any more")
    with pytest.raises(InputError, match="cannot be decoded"):
        prepare(source, tmp_path / "b")


def test_the_seed_decides_the_order(tmp_path: Path) -> None:
    source = annotate(tmp_path / "in", 9, (text_sample,))
    for name, seed in (("a", 1), ("b", 1), ("c", 2), ("d", None)):
        prepare(source, tmp_path / name, PrepareOptions(samples_per_shard=4, shuffle_seed=seed))
    assert tars(tmp_path / "a") == tars(tmp_path / "b")
    assert keys(tmp_path / "d") == sorted(keys(tmp_path / "a")) != keys(tmp_path / "a") != keys(tmp_path / "c")


@settings(max_examples=12, deadline=None, derandomize=True)
@given(kills=st.lists(st.integers(1, 110), min_size=1, max_size=4), skip_bad=st.booleans())
def test_any_kills_give_the_same_bytes(kills: list[int], skip_bad: bool) -> None:
    """A process killed before any of its operations on files; the next one goes on, and the last one ends."""
    root = Path(tempfile.mkdtemp())
    try:
        source = annotate(root / "in", 8)
        options = PrepareOptions(samples_per_shard=3, shuffle_seed=1, skip_bad=skip_bad, max_shard_bytes=20_480)
        prepare(source, root / "whole", options)
        for operation in kills:
            if not killed_at(operation, partial(prepare, source, root / "out", options, overwrite=True), root / ".out.partial"):
                break
        prepare(source, root / "out", options, overwrite=True)
        assert tars(root / "out") == tars(root / "whole")
        assert sorted(p.name for p in root.iterdir()) == ["in", "out", "whole"]
    finally:
        shutil.rmtree(root)


def stop_half_way(work: Callable[[], Any], out: Path) -> int:
    """Kill it as soon as a group is finished; returns how many are."""
    operation = 10
    while killed_at(operation, work, partial_folder(out)) and not finished_groups(out):
        operation += 1
    return finished_groups(out)


def test_finished_shards_are_not_written_again(tmp_path: Path) -> None:
    source = annotate(tmp_path / "in", 12, (text_sample,))
    calls = []
    work = partial(prepare, source, tmp_path / "out", SMALL)
    kept = stop_half_way(work, tmp_path / "out")
    assert 0 < kept < 4
    prepare(source, tmp_path / "out", SMALL, on_lines=lambda done, total: calls.append((done, total)))
    assert (3 * kept, 12) in calls and calls[-1] == (12, 12) and len(calls) == 1 + kept + (12 - 3 * kept)


def stopped_command(source: Path, out: Path, blow: signal.Signals, groups: int) -> subprocess.CompletedProcess[str]:
    """`moss data prepare` that gets a signal once it has finished so many groups, from a thread of its own: on a busy machine
    whoever looks from outside may not have a turn before the end."""
    words = ["data", "prepare", str(source), str(out), "--workers", "2", "--samples-per-shard", "2"]
    code = f"""
import os, pathlib, sys, threading, time
from data_pipeline.shards.partial import finished_groups
from moss_train.cli.main import main

def strike():
    while finished_groups(pathlib.Path({str(out)!r})) < {groups}:
        time.sleep(0.001)
    os.kill(os.getpid(), {int(blow)})

threading.Thread(target=strike, daemon=True).start()
sys.exit(main({words!r}))
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)


def test_interrupted_then_killed_workers_of_the_command(tmp_path: Path) -> None:
    source = annotate(tmp_path / "in", 600, (text_sample,))
    prepare(source, tmp_path / "whole", PrepareOptions(samples_per_shard=2))
    kept = 0
    for blow in (signal.SIGINT, signal.SIGKILL):
        done = stopped_command(source, tmp_path / "out", blow, kept + 5)
        kept, before = finished_groups(tmp_path / "out"), kept
        assert before + 5 <= kept < 300 and not (tmp_path / "out").exists(), (done.returncode, done.stderr)
        if blow == signal.SIGINT:
            assert done.returncode == 130
            said = f"interrupted; {kept} finished shards are kept in {tmp_path}/.out.partial: the same command goes on"
            assert said in done.stderr
    prepare(source, tmp_path / "out", PrepareOptions(samples_per_shard=2))
    assert tars(tmp_path / "out") == tars(tmp_path / "whole")


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    source = annotate(tmp_path / "in", 4, (text_sample,))

    def second(done: int, total: int) -> None:
        if done == 2:
            child = multiprocessing.get_context("fork").Process(target=refused, args=(source, tmp_path / "out"))
            child.start()
            child.join()
            assert child.exitcode == 0

    assert prepare(source, tmp_path / "out", on_lines=second)["samples"] == 4


def refused(source: Path, out: Path) -> None:
    with pytest.raises(InputError, match="is in use by another `moss data prepare`; wait for it"):
        prepare(source, out)


def test_another_plan_is_refused_with_the_reason(tmp_path: Path) -> None:
    source = annotate(tmp_path / "in", 12, (text_sample,))
    assert stop_half_way(partial(prepare, source, tmp_path / "out", SMALL), tmp_path / "out")
    with pytest.raises(InputError, match=r"samples_per_shard was 3 and is 4; give the values of that run .* or pass --restart"):
        prepare(source, tmp_path / "out", PrepareOptions(samples_per_shard=4, shuffle_seed=1))
    with source.open("a") as file:
        file.write("\n")
    with pytest.raises(InputError, match="the annotation file was changed"):
        prepare(source, tmp_path / "out", SMALL)
    assert prepare(source, tmp_path / "out", SMALL, restart=True)["samples"] == 12


def test_a_bad_file_stops_and_is_named_and_what_is_finished_stays(tmp_path: Path) -> None:
    source = annotate(tmp_path / "in", 9, (video_sample,))
    good = (tmp_path / "in" / "v0007.0.mp4").read_bytes()
    ordered = PrepareOptions(samples_per_shard=3)
    prepare(source, tmp_path / "whole", ordered)
    (tmp_path / "in" / "v0007.0.mp4").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"v0007\.0\.mp4 \(.*a\.jsonl line 8\) cannot be .*finished shards are kept"):
        prepare(source, tmp_path / "out", ordered)
    assert finished_groups(tmp_path / "out") == 2 and not (tmp_path / "out").exists()
    (tmp_path / "in" / "v0007.0.mp4").write_bytes(good)
    prepare(source, tmp_path / "out", ordered)
    assert tars(tmp_path / "out") == tars(tmp_path / "whole")


def test_bad_lines_can_be_skipped_and_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = annotate(tmp_path / "in", 9, (video_sample,))
    lines = source.read_text().splitlines()
    lines[2] = lines[2].replace('"kind": "video"', '"kind": "film"')
    lines[4] = lines[4][:50]
    source.write_text("\n".join(lines) + "\n")
    (tmp_path / "in" / "v0000.0.mp4").unlink()
    (tmp_path / "in" / "v0001.0.mp4").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"line 1 sample v0000: media file .* does not exist"):
        prepare(source, tmp_path / "out", PrepareOptions(samples_per_shard=3))
    words = ["data", "prepare", str(source), str(tmp_path / "out"), "--samples-per-shard", "3", "--skip-bad", "--workers", "1"]
    assert main(words) == 0
    assert "4 lines were left out; reasons in " in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "prepare_report.json").read_text())
    assert [fault["line"] for fault in report["skipped"]] == [1, 2, 3, 5] and report["lines"] == 9
    reasons = [fault["reason"] for fault in report["skipped"]]
    for reason, part in zip(reasons, ["cannot be read: No such file", "decode", "kind is 'film'", "not JSON"], strict=True):
        assert part in reason
    # all three lines of the first group are bad: its tar is not there, and the names have no gap
    assert sorted(p.name for p in (tmp_path / "out").glob("*.tar")) == ["shard-000000.tar", "shard-000001.tar"]
    assert keys(tmp_path / "out") == ["v0003", "v0005", "v0006", "v0007", "v0008"]
    assert main([*words, "--overwrite"]) == 0


def test_files_that_came_later_are_taken_when_it_goes_on(tmp_path: Path) -> None:
    """A group that was finished without a bad file is written again once that file was replaced."""
    source = annotate(tmp_path / "in", 9, (video_sample,))
    prepare(source, tmp_path / "whole", PrepareOptions(samples_per_shard=3))
    good = (tmp_path / "in" / "v0001.0.mp4").read_bytes()
    (tmp_path / "in" / "v0001.0.mp4").write_bytes(b"junk")
    skipping = PrepareOptions(samples_per_shard=3, skip_bad=True)
    assert stop_half_way(partial(prepare, source, tmp_path / "out", skipping), tmp_path / "out")
    (tmp_path / "in" / "v0001.0.mp4").write_bytes(good)
    assert prepare(source, tmp_path / "out", skipping)["skipped"] == 0
    assert keys(tmp_path / "out") == keys(tmp_path / "whole")


def limited(source: Path, out: Path, size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    with pytest.raises(InputError, match=r"\.out\.partial.* cannot be written: File too large; make room"):
        prepare(source, out, PrepareOptions(samples_per_shard=2))


def test_a_disk_that_takes_no_more_keeps_what_is_finished(tmp_path: Path) -> None:
    """The limit on file sizes stands for a full disk: the operating system refuses the same call."""
    source = annotate(tmp_path / "in", 6, (text_sample,))
    lines = source.read_text().splitlines()
    lines[4] = lines[4].replace("nothing 4", "word " * 20_000)
    source.write_text("\n".join(lines) + "\n")
    child = multiprocessing.get_context("fork").Process(target=limited, args=(source, tmp_path / "out", 50_000))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert finished_groups(tmp_path / "out") == 2 and not list(partial_folder(tmp_path / "out").glob("shards/.*"))
    assert prepare(source, tmp_path / "out", PrepareOptions(samples_per_shard=2))["samples"] == 6


def test_equal_keys_are_refused_with_their_lines(tmp_path: Path) -> None:
    source = annotate(tmp_path / "in", 5, (text_sample,))
    lines = source.read_text().splitlines()
    source.write_text("\n".join([*lines, "", lines[1]]) + "\n")
    with pytest.raises(InputError, match="has the key 't0001' in lines 2 and 7"):
        prepare(source, tmp_path / "out", PrepareOptions(skip_bad=True))
    assert not partial_folder(tmp_path / "out").exists()


def test_lines_that_no_file_can_hold_are_named(tmp_path: Path) -> None:
    """Half a surrogate pair is JSON but no text; a thousand brackets are JSON but no sample."""
    source = annotate(tmp_path / "in", 4, (text_sample,))
    lines = source.read_text().splitlines()
    lines[1] = lines[1].replace('"kind"', '"source": "\\ud800", "kind"')
    lines[2] = '{"key": "deep", "meta": ' + "[" * 100_000 + "]" * 100_000 + "}"
    source.write_text("\n".join(lines) + "\n")
    summary = prepare(source, tmp_path / "out", PrepareOptions(skip_bad=True))
    report = json.loads((tmp_path / "out" / "prepare_report.json").read_text())
    assert summary["samples"] == 2 and [fault["line"] for fault in report["skipped"]] == [2, 3]


@pytest.mark.parametrize("key", ["", "a.b", "k" * 98, "\\ud800", "a\\nb"])
def test_unusable_keys_are_named(tmp_path: Path, key: str) -> None:
    source = annotate(tmp_path / "in", 1, (text_sample,))
    source.write_text(source.read_text().replace("t0000", key))
    with pytest.raises(InputError, match="line 1 has"):
        prepare(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_licence_can_be_required(tmp_path: Path) -> None:
    strict = PrepareOptions(require_license=True)
    with pytest.raises(InputError, match="line 1 sample v0000 has no license"):
        prepare(annotate(tmp_path / "bare", 2), tmp_path / "a", strict)
    summary = prepare(annotate(tmp_path / "in", 2, license="CC0", source="film"), tmp_path / "b", strict)
    assert summary["licenses"] == {"CC0": 2} and summary["sources"] == {"film": 2}


def test_shards_are_bounded_in_bytes(tmp_path: Path) -> None:
    source = annotate(tmp_path / "in", 8, (video_sample,))
    summary = prepare(source, tmp_path / "out", PrepareOptions(samples_per_shard=8, max_shard_bytes=20_480))
    assert len(summary["shards"]) > 1 and all(size <= 20_480 for size in summary["shard_bytes"].values())
    assert keys(tmp_path / "out") == [f"v{i:04d}" for i in range(8)]
    tiny = prepare(source, tmp_path / "tiny", PrepareOptions(samples_per_shard=8, max_shard_bytes=1))
    assert len(tiny["shards"]) == 8


def test_clips_are_transcoded_and_described_as_stored(tmp_path: Path) -> None:
    source = annotate(tmp_path / "in", 2, (video_sample,))
    (tmp_path / "in" / "v0000.0.mp4").write_bytes(make_video([50] * 24, width=160, height=120))
    options = PrepareOptions(transcode=TranscodeSettings(short_side=60, gop_seconds=1.0))
    summary = prepare(source, tmp_path / "out", options)
    assert summary["prepare"]["transcode"]["short_side"] == 60 and summary["prepare"]["versions"]["x264"].isdigit()
    large, small = (sample.media[0] for _, sample in read_samples(tmp_path / "out"))
    assert (large.width, large.height, large.num_frames, large.duration) == (80, 60, 24, 3.0)
    assert (small.width, small.height) == (64, 48)
    with tarfile.open(tmp_path / "out" / "shard-000000.tar") as tar:
        first, second = (tar.extractfile(f"v000{i}.0.mp4").read() for i in range(2))  # type: ignore[union-attr]
    assert probe_video(first).width == 80
    assert second == (tmp_path / "in" / "v0001.0.mp4").read_bytes()
    prepare(source, tmp_path / "again", options)
    assert tars(tmp_path / "again") == tars(tmp_path / "out")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workers", "0"], "workers is 0"),
        (["--samples-per-shard", "0"], "samples per shard is 0"),
        (["--max-shard-bytes", "much"], "--max-shard-bytes is 'much'"),
        (["--short-side", "3"], "short side is 3"),
    ],
)
def test_bad_options_are_one_sentence(tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = annotate(tmp_path / "in", 1, (text_sample,))
    assert main(["data", "prepare", str(source), str(tmp_path / "out"), *words]) == 2
    error: Any = capsys.readouterr().err
    assert message in error and not partial_folder(tmp_path / "out").exists()
