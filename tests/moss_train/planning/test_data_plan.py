"""Costs follow the published formulas, balance is what can be worked out by hand, and folders are read without decoding."""

from __future__ import annotations

import itertools
import json
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.shards import write_samples
from model.errors import InputError
from moss_train.cli.main import main
from moss_train.config.compose import compose
from moss_train.frames.cost import frame_flops
from moss_train.planning.data_cost import StepCost
from moss_train.planning.data_items import DataItem, SourceVideo, folder_items, workload_items
from moss_train.planning.data_load import Speeds, load_owed
from moss_train.planning.data_steps import PackBounds, balance, pack_shape, packed
from moss_train.planning.workload import draw_samples
from tests.data_pipeline.helpers import (
    data_config,
    image_sample,
    realtime_sample,
    stage_config,
    text_sample,
    tokenizer,
    video_sample,
    write_mixture,
)

TEXT = DataItem(rows=100, frames=0, streamed=False, decoded=0, pixels=0, stored=600)


def cost_of(*overrides: str) -> StepCost:
    return StepCost.of(compose(["stage=pt2", "run_dir=unused", *overrides]))


COST = cost_of()


def item(rows: int, frames: int, streamed: bool = False) -> DataItem:
    return DataItem(rows, frames, streamed, 30 * frames, 640 * 480, 1000 * frames + rows)


def test_costs_are_those_of_the_published_formulas() -> None:
    """Of the 11B model: 18.4 GFLOP a row, 13.6 a frame's keys and values, 3.39 a row that looks at 256 frames."""
    cost = cost_of()
    assert cost.row() == pytest.approx(18.4e9, rel=0.005)
    one, two = cost.text([item(1, 0)], 1), cost.text([item(1, 1)], 1)
    pair = 8 * 4 * 4096 * 101
    assert (two - one) / 3 == pytest.approx(13.6e9 + pair, rel=0.005)
    assert 256 * pair == pytest.approx(3.39e9, rel=0.005)
    half = cost.text([item(8, 4, streamed=True)], 8)
    assert cost.text([item(8, 4)], 8) - half == pytest.approx(3 * 0.5 * 8 * 4 * pair)
    assert cost.vision(1) == pytest.approx(frame_flops(cost.model) * (1 + 9.7 / 4.45))


@pytest.mark.parametrize(
    ("overrides", "passes"),
    [((), 3), (("stage.trainable=projector_only",), 2), (("parallel.recompute=full",), 4)],
)
def test_passes_follow_what_trains(overrides: tuple[str, ...], passes: float) -> None:
    cost = cost_of(*overrides)
    attention = 32 * 4 * 4096 * 50 * 50 / 2
    assert cost.text([item(50, 0)], 50) == pytest.approx(passes * (50 * cost.row() + attention), rel=1e-6)


def test_padding_costs_what_rows_cost() -> None:
    cost = cost_of()
    assert cost.text([item(30, 0)], 60) == cost.text([item(30, 0), item(30, 0)], 60)


def test_equal_samples_gain_nothing_from_packs() -> None:
    """Each fills a pack by itself: no padding, no waiting, whatever the order."""
    bounds = PackBounds(rows=64, frames=8, samples=None, buffer=4)
    same = itertools.repeat(item(64, 8))
    cost = cost_of("vision.keep_activations_gib=-1")  # else the second pack's frames would be encoded twice
    found = balance(packed(same, bounds), same, cost, 64, ranks=4, replica_ranks=1, each=2, steps=2)
    assert (found.ratio, found.ratio_accumulated, found.ideal) == pytest.approx((1, 1, 1))
    assert (found.rows_packed, found.rows_alone, found.frames_packed, found.frames_alone) == (1, 1, 1, 1)
    assert (found.samples, found.frames, found.frames_encoded) == (8, 16, 1)


def test_unequal_samples_are_worked_out_by_hand() -> None:
    """Two ranks, a clip and a short text in turn: a pack holds both, alone the text's rank waits for the clip's."""
    cost = cost_of("vision.keep_activations_gib=-1")
    clip, text = item(56, 4), item(8, 0)
    bounds = PackBounds(rows=64, frames=8, samples=None, buffer=2)
    stream = packed(itertools.cycle([clip, text]), bounds)
    found = balance(stream, itertools.cycle([clip, text]), cost, 64, ranks=2, replica_ranks=1, each=1, steps=1)
    packs = cost.vision(4) + cost.text([clip, text], 64)
    alone = cost.vision(4) + cost.text([clip], 56)  # two rounds of it for the same four samples
    assert found.samples == 4 and found.cost == pytest.approx(packs)
    assert found.ratio == pytest.approx(packs / (2 * alone))
    assert found.frames_alone == 2 and found.frames_packed == 1 and found.rows_alone == pytest.approx(56 / 32)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 6)), min_size=4, max_size=12), st.sampled_from([1, 2]))
def test_no_order_beats_samples_without_padding_and_waiting(sizes: list[tuple[int, int]], replica_ranks: int) -> None:
    made = [item(rows + frames, frames) for rows, frames in sizes]
    bounds = PackBounds(rows=64, frames=8, samples=None, buffer=6)
    found = balance(
        packed(itertools.cycle(made), bounds), itertools.cycle(made), COST, 64,
        ranks=4, replica_ranks=replica_ranks, each=2, steps=2,
    )  # fmt: skip
    assert found.ideal >= 1 - 1e-9 and found.ratio <= found.ratio_accumulated + 1e-9
    assert min(found.rows_packed, found.rows_alone, found.frames_packed, found.frames_alone, found.frames_encoded) >= 1 - 1e-9


def test_padding_falls_with_the_buffer() -> None:
    stage = compose(["stage=sft_offline", "run_dir=unused"]).stage
    shapes = []
    for buffer in (1, 16, 64):
        bounds = PackBounds(stage.sequence_length, stage.max_frames_per_pack, None, buffer)
        shapes.append(pack_shape(workload_items(stage, SourceVideo()), bounds, samples=1024))
    assert shapes[0].padding > shapes[1].padding > shapes[2].padding > 0
    assert shapes[0].samples == 1 and all(s.frames == sorted(s.frames) and s.frames[-1] <= 256 for s in shapes)


def test_items_of_the_workload_are_its_samples() -> None:
    stage = compose(["stage=pt1", "run_dir=unused"]).stage
    drawn = list(itertools.islice(draw_samples("pt1"), 300))
    items = list(itertools.islice(workload_items(stage, SourceVideo(640, 360, 24.0)), 300))
    assert [(i.rows, i.frames) for i in items] == [(s.rows, s.frames) for s in drawn]
    videos = [i for i, s in zip(items, drawn, strict=True) if s.kind == "video"]
    assert videos and all(i.decoded == 12 * i.frames and i.pixels == 640 * 360 for i in videos)  # 2 of 24 a second
    assert all(i.decoded == 1 for i, s in zip(items, drawn, strict=True) if s.kind == "image")


def test_folders_are_planned_from_their_json_alone(tmp_path: Path) -> None:
    made = [video_sample(0), realtime_sample(1), text_sample(2), image_sample(3)]
    for _, sample, members in made[:1]:
        sample.media[0].fps = 4.0
        sample.media[0].width, sample.media[0].height, sample.media[0].rate = 64, 48, 8.0
        sample.media[0].duration, sample.media[0].num_frames = 0.5, 4
        members["0.mp4"] = b"nobody decodes this"
    silent = realtime_sample(4)
    silent[1].messages[1].content = "<|video|>" * 4  # nothing in it is learned
    write_samples(tmp_path / "video", [*made, silent], samples_per_shard=2)
    found = folder_items(data_config(tmp_path, ("video",)), stage_config(), tokenizer(), samples=100)
    assert found.count == 4 and found.left_out == 1 and found.shares == [1.0]
    clip, dialogue, text, image = found.items[0]
    assert (clip.frames, clip.decoded, clip.pixels) == (2, 3, 64 * 48)  # frames 0 and 2 of a clip of four
    assert (dialogue.frames, dialogue.decoded, dialogue.streamed) == (4, 4, True)
    assert (text.frames, text.decoded, text.pixels) == (0, 0, 0)
    assert (image.frames, image.decoded, image.pixels) == (1, 1, 40 * 30)
    with tarfile.open(tmp_path / "video" / "shard-000000.tar") as tar:
        assert clip.stored == sum(m.size for m in tar if m.name.startswith("v0000"))


def test_streams_keep_the_shares_of_the_blend(tmp_path: Path) -> None:
    write_mixture(tmp_path, count=4)
    data = data_config(tmp_path, ("video", "text"), mixture={"video": 3.0, "text": 1.0})
    found = folder_items(data, stage_config(), tokenizer(), samples=4)
    drawn = list(itertools.islice(found.stream(5), 2000))
    assert sum(i.frames > 0 for i in drawn) / 2000 == pytest.approx(0.75, abs=0.04)
    assert drawn == list(itertools.islice(found.stream(5), 2000)) != list(itertools.islice(found.stream(6), 2000))


def test_loads_add_up() -> None:
    """Two GPUs of two replicas, four samples a step of two seconds: one sample a second each."""
    data = data_config(Path("unused"), global_data_workers=4, shuffle_buffer=10, packing_buffer=6, prefetch=2)
    clip = DataItem(rows=100, frames=10, streamed=False, decoded=300, pixels=1000, stored=5000)
    owed = load_owed(
        itertools.repeat(clip), data, Speeds(decoded=1e6, converted=1e5),
        step_seconds=2.0, step_samples=4.0, ranks=2, replicas=2, pack_frames=20.0, frame_bytes=12, samples=64,
    )  # fmt: skip
    assert (owed.frames, owed.decoded, owed.bytes) == pytest.approx((10, 300, 5000))
    assert owed.cores == pytest.approx(300 * 1000 / 1e6 + 10 * 1000 / 1e5)
    assert owed.buffers == pytest.approx(2 * 16 * 5000) and owed.prefetched == pytest.approx(1 * 2 * 20 * 12)


def command(root: Path, *more: str) -> list[str]:
    datasets = "data.datasets=[" + ",".join(f"{{name:{n},path:{n},modality:{n}}}" for n in ("video", "text")) + "]"
    settings = [f"data.root={root}", "data.mixture={video:1.0,text:1.0,image:0.0}", "model=tiny", "data.packing_buffer=8"]
    words = ["data", "plan", "stage=sft_offline", datasets, *settings, "stage.frames={fps:8.0,min_frames:1,max_frames:8}"]
    return [*words, "stage.sequence_length=128", "train.global_batch_size=2", "--ranks", "2", "--steps", "2", *more]


def test_command_plans_real_folders_and_measures_a_core(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_mixture(tmp_path, count=6)
    tokenizer().save(tmp_path / "tokenizer.json")
    assert main(command(tmp_path, "--json", "--measure", "3", "--cores-per-gpu", "1e9")) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["data"] == "12 samples of 2 datasets" and [s["buffer"] for s in plan["shapes"]] == [8, 16, 64, 256]
    assert plan["speeds"]["measured"] and plan["speeds"]["decoded"] > 0
    (step,), (load,) = plan["steps"], plan["loads"]
    assert step["ranks"] == step["replicas"] == 2 and step["packs"] == 1 and step["ratio"] <= step["ratio_accumulated"] + 1e-9
    assert load["decoded"] == pytest.approx(load["frames"])  # every frame of the tests' clips is wanted
    assert main(command(tmp_path, "--step-seconds", "1e-6", "--cores-per-gpu", "1")) == 1
    assert "the loader cannot keep up: 2 ranks: decoding owes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["stage=warm_text", "--workload"], "stage warm_text is not in the workload"),
        (["stage=pt2", "--workload", "--source", "4k"], "--source is '4k'"),
        (["stage=pt2", "--workload", "--mfu", "2"], "--mfu is 2"),
        (["stage=pt2", "--workload", "--ranks", "0"], "--ranks is 0"),
        (["stage=pt2", "--workload", "--cores-per-gpu", "0"], "--cores-per-gpu is 0; it must be above 0"),
        (["stage=pt2", "--workload", "--step-seconds", "inf"], "--step-seconds is inf; it must be above 0 and finite"),
        (["stage=pt2", "data.root=s3://bucket/x"], "data.root s3://bucket/x is remote; copy some shards here"),
        (["stage=pt2", "--workload", "--measure", "2"], "--measure has no clips"),
        (["stage=pt2", "parallel=tp8", "--workload", "--ranks", "12"], "does not divide the 12 ranks"),
        (["stage=pt2", "data.root=nowhere"], "tokenizer nowhere/tokenizer.json does not exist"),
    ],
)
def test_bad_arguments_end_in_a_sentence(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "plan", *words]) == 2
    printed = capsys.readouterr()
    assert sentence in printed.err and not printed.out


def test_remote_folders_are_named(tmp_path: Path) -> None:
    data = data_config(tmp_path, ("video",))
    data.datasets[0].path = "s3://bucket/video"
    with pytest.raises(InputError, match=r"data\.datasets\[video\]\.path s3://bucket/video is remote"):
        folder_items(data, stage_config(), tokenizer(), samples=1)


def test_page_holds_what_the_command_gives(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["stage=sft_realtime", "train.global_batch_size=1", "--workload", "--ranks", "8", "--json"]
    assert main(["data", "plan", *words]) == 0
    found = json.loads(capsys.readouterr().out)
    folder = Path(__file__).resolve().parents[3] / "docs" / "benchmarks"
    stored = json.loads((folder / "data-balance.json").read_text(encoding="utf-8"))["stages"]["sft_realtime"]
    assert found["shapes"] == stored["shapes"]
    (step,) = found["steps"]
    assert step == pytest.approx(stored["steps"][0])
    assert found["loads"][0] == pytest.approx(stored["loads"][0])
    row = f"| {step['frames_encoded']:.3f} | {step['ratio']:.2f} | {step['ratio_accumulated']:.2f} | {step['ideal']:.2f} |"
    assert row in (folder / "data-balance.md").read_text(encoding="utf-8")
