"""`moss bench data` at a size that is measured in a moment, and the parts that its numbers rest on."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from moss_train.bench.data import reference_way
from moss_train.bench.data.clips import ClipSettings, make_clips
from moss_train.bench.data.meter import Pass, rows
from moss_train.cli.main import EXIT_BAD_INPUT, main
from tests.data_pipeline.media.clips import all_frames

SMALL = ["bench", "data", "--clips", "2", "--seconds", "3", "--width", "96", "--height", "64", "--size", "56", "--repeats", "1"]
OURS = ("ours", "ours, skip_non_reference")


def test_every_way_is_in_the_table_and_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("cv2")
    out = tmp_path / "made" / "found.json"
    words = ["--levels", "decoder,loader,memory", "--samples", "400", "--work-dir", str(tmp_path / "work"), "--out", str(out)]
    assert main([*SMALL, *words]) == 0
    found, printed = json.loads(out.read_text()), capsys.readouterr().out
    for level, last in (("decoder", "ours on transcoded clips"), ("loader", "ours on transcoded shards")):
        by_way = {row["way"]: row for row in found[level]}
        assert {"the reference's way", *OURS, last} <= set(by_way) and all(way in printed for way in by_way)
        assert by_way["the reference's way"]["speed"] == 1.0
        assert all(row["speed"] > 0 and row["samples"] == 2 and row["frames"] == 6 for row in by_way.values())
    differences = {row["way"]: int(row["difference"].split()[1].rstrip(",")) for row in found["decoder"]}
    assert differences["ours"] <= 2 and differences["PyAV, every frame"] == differences["ours"]
    assert sum(found["memory"]["kinds"].values()) >= 400 and len(found["memory"]["mib"]) == 100
    assert found["versions"]["av"] and found["clips"]["width"] == 96 and found["command"] and found["date"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--levels", "decoder,disk"], "--levels has 'disk'; use some of decoder, loader, ranks, memory, device"),
        (["--levels", ","], "--levels is empty; use some of decoder"),
        (["--levels", "ranks"], "--clips is 2; the level ranks has 4 readers"),
        (["--seconds", "0"], "--seconds has '0'"),
        (["--levels", "memory", "--out", "."], "--out . is a folder"),
    ],
)
def test_bad_arguments_are_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, *arguments]) == EXIT_BAD_INPUT
    assert message in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_the_level_of_the_device_needs_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--levels", "device"]) == EXIT_BAD_INPUT
    assert "the level device measures a GPU" in capsys.readouterr().err


def test_processes_make_the_clips_that_one_makes_with_all_frames_in_both_sizes_and_they_are_kept(tmp_path: Path) -> None:
    settings = ClipSettings(count=2, seconds=2.0, width=720, height=576, rate=9.99, preset="ultrafast")
    said: list[str] = []
    one, two = (make_clips(tmp_path / str(workers), settings, said.append, workers=workers) for workers in (1, 2))
    lines = [f"{word} clip {number} of 2" for word in ("rendering", "transcoding") for number in (1, 2)]
    assert said == [*lines, *lines]
    for ours, theirs in zip(one.originals + one.transcoded, two.originals + two.transcoded, strict=True):
        assert ours.read_bytes() == theirs.read_bytes()
    assert sorted(path.name for path in two.shards.parent.iterdir() if path.suffix == ".part") == []
    sizes = {path.name: [f.shape[:2] for f in all_frames(path.read_bytes())] for path in one.originals + one.transcoded}
    assert sizes == {f"{n}{end}.mp4": [size] * 19 for n in (0, 1) for end, size in (("", (576, 720)), ("-560", (560, 700)))}
    assert settings.indices == [0, 9]
    make_clips(tmp_path / "1", settings, said.append)
    assert len(said) == 8


def test_ctrl_c_ends_every_process_that_makes_clips(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LONG_CLIPS, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in (1, 2)] == [f"rendering clip {number} of 3\n" for number in (1, 2)]
        _until(lambda: len(list(tmp_path.rglob("*.part"))) == 2)  # both are at it
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
        _until(lambda: not _group(process.pid))
    finally:
        process.kill()


LONG_CLIPS = """
import sys
from pathlib import Path
from moss_train.bench.data.clips import ClipSettings, make_clips
try:
    make_clips(Path(sys.argv[1]), ClipSettings(3, 100000.0, 160, 90), lambda line: print(line, flush=True), workers=2)
except KeyboardInterrupt:
    sys.exit(130)
"""


def _until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def _group(leader: int) -> bool:
    """Whether a process of this group is left."""
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_reference_image_processor_gives_its_known_numbers() -> None:
    white = np.full((1080, 1920, 3), 255, dtype=np.uint8)
    fitted = reference_way.fit(white, 560)
    normal = reference_way.normalised([fitted])
    assert fitted[:315].min() == 255 and fitted[315:].max() == 0
    padding = normal[0, 0, :, 559, 0].tolist()
    assert all(math.isclose(a, b, abs_tol=1e-5) for a, b in zip(padding, (-1.79226, -1.75210, -1.48022), strict=True))
    assert torch.equal(reference_way.pixels_of(normal)[0], torch.from_numpy(fitted).permute(2, 0, 1))


@pytest.mark.parametrize("threads", [1, 3])
def test_the_reference_reads_the_frames_that_all_others_read(tmp_path: Path, threads: int) -> None:
    pytest.importorskip("cv2")
    clips = make_clips(tmp_path, ClipSettings(count=1, seconds=2.0, width=96, height=64, gop=20), lambda _: None)
    plain = all_frames(clips.originals[0].read_bytes())
    found = reference_way.read_frames(clips.originals[0], [0, 13, 25, 40, 57], threads)
    assert len(found) == 5
    for number, frame in zip([0, 13, 25, 40, 57], found, strict=True):
        assert np.abs(frame.astype(int) - plain[number]).max() <= 2


def test_ratios_are_of_passes_beside_each_other() -> None:
    slow = [Pass(10, 20, cpu, [0.1, 0.1, 0.4]) for cpu in (2.0, 4.0, 2.0)]
    fast = [Pass(10, 20, cpu, [0.05, 0.05, 0.05]) for cpu in (1.0, 1.0, 2.0)]
    base, other = rows({"slow": slow, "fast": fast}, "slow", {"fast": "max 1"})
    assert (base.speed, other.speed, other.slowest, other.fastest) == (1.0, 2.0, 1.0, 4.0)
    assert (base.p50, other.p50, other.difference) == (1.0, 0.5, "max 1") and base.p99 > base.p50
