"""The loader on real shards with real media: mixture, bounds, order, exact resume, faults."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from data_pipeline.loader import build_loader
from data_pipeline.loader.turns import readers_per_replica
from data_pipeline.packing.batch import IGNORE_INDEX, PackedMicroBatch
from data_pipeline.schema import Media, Message, Sample
from data_pipeline.shards import write_samples
from model.errors import InputError
from moss_train.config.schema import DataConfig, DatasetConfig, FrameConfig
from tests.data_pipeline.helpers import (
    data_config,
    grey_levels,
    make_video,
    model_config,
    realtime_sample,
    stage_config,
    text_sample,
    tokenizer,
    video_sample,
    write_mixture,
)

TOKENIZER = tokenizer()
MODEL = model_config()


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shards")
    write_mixture(root)
    return root


def loader(data: DataConfig, **values: Any) -> Any:
    return build_loader(data, values.pop("stage", stage_config()), MODEL, TOKENIZER, **values)


def take(batches: Any, count: int) -> list[PackedMicroBatch]:
    return [next(batches) for _ in range(count)]


def same(a: PackedMicroBatch, b: PackedMicroBatch) -> bool:
    if (a.sample_keys, a.dataset_index) != (b.sample_keys, b.dataset_index):
        return False
    pairs = [(getattr(a, n), getattr(b, n)) for n in vars(a)]
    return all(torch.equal(x, y) for x, y in pairs if isinstance(x, torch.Tensor))


def keys(batches: list[PackedMicroBatch]) -> list[list[str]]:
    return [[k for k in b.sample_keys if k] for b in batches]


def test_micro_batches_keep_both_bounds_and_hold_every_modality(shards: Path) -> None:
    batches = take(loader(data_config(shards)), 30)
    for batch in batches:
        assert batch.num_rows == 128 and batch.num_frames <= 12
        assert batch.frames.shape[1:] == (3, 64, 64) and batch.frames.dtype == torch.uint8
        assert len(batch.sample_keys) == len(batch.cu_seqlens) - 1 == len(batch.dataset_index)
        assert int((batch.input_ids == TOKENIZER.image_id).sum()) == batch.num_frames
    seen = Counter(key.split("/")[0] for batch in keys(batches) for key in batch)
    assert set(seen) == {"video", "image", "text", "realtime"}


def test_frames_belong_to_their_sample(shards: Path) -> None:
    for batch in take(loader(data_config(shards, ("video",))), 6):
        for n, key in enumerate(batch.sample_keys):
            if key:
                first = int(batch.cu_frames[n])
                level = batch.frames[first : int(batch.cu_frames[n + 1]), 0, 40, 40].float()
                expected = 10 + int(key.split("/v")[1]) % 60 + 10 * torch.arange(4)
                assert (level - expected).abs().max() <= 3


def test_shares_follow_mixture_and_weights(shards: Path) -> None:
    datasets = [
        DatasetConfig(name="a", path="text", modality="text", weight=3.0),
        DatasetConfig(name="b", path="text", modality="text", weight=1.0),
        DatasetConfig(name="c", path="image", modality="image"),
        DatasetConfig(name="gone", path="nowhere", modality="video"),
    ]
    data = data_config(shards, mixture={"text": 0.8, "image": 0.2})
    data.datasets = datasets
    seen = Counter(k.split("/")[0] for b in keys(take(loader(data), 250)) for k in b)
    total = sum(seen.values())
    assert set(seen) == {"a", "b", "c"}  # a modality without a share need not even exist
    for name, share in (("a", 0.6), ("b", 0.2), ("c", 0.2)):
        assert abs(seen[name] / total - share) < 0.05


def test_an_epoch_gives_every_sample_once(shards: Path) -> None:
    data = data_config(shards, ("text",), samples_per_pack=1, shuffle_buffer=0, packing_buffer=1)
    epoch = [b[0] for b in keys(take(loader(data), 12))]
    assert sorted(epoch) == [f"text/t{i:04d}" for i in range(12)]


def test_two_runs_are_equal_and_another_seed_differs(shards: Path) -> None:
    first, second = (take(loader(data_config(shards)), 12) for _ in range(2))
    assert all(same(a, b) for a, b in zip(first, second, strict=True))
    assert keys(take(loader(data_config(shards, seed=7)), 12)) != keys(first)


@pytest.mark.parametrize("stop", [0, 1, 5, 13])
def test_an_interrupted_run_continues_exactly(shards: Path, stop: int) -> None:
    whole = take(loader(data_config(shards)), stop + 10)
    begun = loader(data_config(shards))
    take(begun, stop)
    state = pickle.loads(pickle.dumps(begun.state_dict()))
    resumed = loader(data_config(shards))
    resumed.load_state_dict(state)
    assert all(same(a, b) for a, b in zip(whole[stop:], take(resumed, 10), strict=True))


@pytest.mark.parametrize(("workers", "stop"), [(1, 4), (2, 5)])
def test_worker_processes_continue_exactly(shards: Path, workers: int, stop: int) -> None:
    data = data_config(shards, global_data_workers=workers, worker_processes=None)
    begun = loader(data)
    whole = take(begun, stop)
    state = pickle.loads(pickle.dumps(begun.state_dict()))
    whole += take(begun, 6)
    begun.close()
    resumed = loader(data)
    resumed.load_state_dict(state)
    assert all(same(a, b) for a, b in zip(whole[stop:], take(resumed, 6), strict=True))
    resumed.close()


def test_the_order_does_not_depend_on_how_ranks_share_the_workers(shards: Path) -> None:
    two = [loader(data_config(shards, global_data_workers=2), rank=r, world_size=2) for r in range(2)]
    one = loader(data_config(shards, global_data_workers=2))  # two workers for one rank: in processes of their own
    shared = [next(two[i % 2]) for i in range(10)]
    assert all(same(a, b) for a, b in zip(shared, take(one, 10), strict=True))
    one.close()


def test_the_jitter_differs_between_epochs_and_is_reproducible(shards: Path) -> None:
    stage = stage_config(realtime_jitter_prob=0.5)
    data = data_config(shards, ("realtime",), samples_per_pack=1, shuffle_buffer=0, packing_buffer=1)
    epochs = take(loader(data, stage=stage), 48)
    rows = {tuple(b.input_ids.tolist()) for b in epochs if b.sample_keys[0] == "realtime/r0003"}
    assert len(rows) == 2  # one marker may move
    again = take(loader(data, stage=stage), 48)
    assert all(same(a, b) for a, b in zip(epochs, again, strict=True))


def test_validation_is_finite_in_order_and_the_same_for_any_number_of_ranks(shards: Path) -> None:
    whole = list(loader(data_config(shards), split="validation"))
    alone = loader(data_config(shards), split="validation")
    assert keys(list(alone)) == keys(list(alone)) == keys(whole)  # it can be read again
    assert sorted(k for b in keys(whole) for k in b) == sorted(
        f"{name}/{name[0]}{i:04d}" for name in ("video", "image", "text", "realtime") for i in range(12)
    )
    for size in (2, 3):
        ranks = [list(loader(data_config(shards), split="validation", rank=r, world_size=size)) for r in range(size)]
        assert len({len(r) for r in ranks}) == 1
        merged = [ranks[i % size][i // size] for i in range(len(ranks[0]) * size)]
        assert all(same(a, b) for a, b in zip(whole, merged, strict=False))
        assert all(not k for b in merged[len(whole) :] for k in b.sample_keys)  # padding, so that ranks keep step


def test_validation_shows_every_trained_modality_first_and_no_other(shards: Path) -> None:
    batches = keys(take(loader(data_config(shards, mixture={"video": 0.5, "text": 0.5}), split="validation"), 2))
    assert [b[0].split("/")[0] for b in batches] == ["video", "text"]
    whole = loader(data_config(shards, mixture={"image": 1.0}), split="validation")
    assert {k.split("/")[0] for b in keys(list(whole)) for k in b} == {"image"}
    with pytest.raises(InputError, match=r"data\.validation has no dataset of a modality in data\.mixture \(dense\)"):
        loader(data_config(shards, mixture={"dense": 1.0}), split="validation")


def test_one_dense_pack_after_another(tmp_path: Path) -> None:
    labels = [[[i] * 8 for _ in range(8)] for i in range(4)]

    def dense(i: int) -> tuple[str, Sample, dict[str, bytes]]:
        sample = Sample(kind="dense", messages=[], media=[Media(type="video", file="0.mp4")], dense=labels)
        return f"d{i}", sample, {"0.mp4": make_video(grey_levels(4))}

    write_samples(tmp_path / "dense", [dense(i) for i in range(6)])
    batch = next(loader(data_config(tmp_path, ("dense",))))
    assert batch.num_frames == 12 and batch.num_rows == 3 and batch.num_targets == 0
    assert batch.dense_labels is not None and batch.dense_labels[:, 0, 0].tolist() == [0, 1, 2, 3] * 3


def damaged(index: int) -> tuple[str, Sample, dict[str, bytes]]:
    """A clip whose description is right and whose picture data are not."""
    key, sample, members = video_sample(index)
    content = bytearray(members["0.mp4"])
    start, end = content.find(b"mdat") + 4, content.find(b"moov") - 4
    content[start:end] = b"\xff" * (end - start)
    item = sample.media[0]
    item.width, item.height, item.rate, item.duration, item.num_frames = 64, 48, 8.0, 0.5, 4
    return key, sample, {"0.mp4": bytes(content)}


def test_undecodable_samples_are_left_out_and_listed(tmp_path: Path) -> None:
    write_samples(tmp_path / "video", [damaged(i) if i in (2, 5) else video_sample(i) for i in range(8)], samples_per_shard=4)
    ledger = tmp_path / "run" / "quarantine.jsonl"
    batches = take(loader(data_config(tmp_path, ("video",)), ledger=ledger), 12)
    seen = {k for b in keys(batches) for k in b}
    assert seen == {f"video/v000{i}" for i in (0, 1, 3, 4, 6, 7)}
    entries = loader(data_config(tmp_path, ("video",)), ledger=ledger).ledger.entries()
    assert {(e["dataset"], e["shard"], e["key"], e["kind"]) for e in entries} == {
        ("video", "shard-000000.tar", "v0002", "bad"),
        ("video", "shard-000001.tar", "v0005", "bad"),
    }
    assert len(entries) == 2 and all("0.mp4" in e["reason"] for e in entries)  # listed once, however often met


@pytest.mark.parametrize("in_process", [True, False])
def test_too_many_bad_samples_stop_the_run(tmp_path: Path, in_process: bool) -> None:
    write_samples(tmp_path / "video", [damaged(i) if i % 2 else video_sample(i) for i in range(8)])
    ledger = tmp_path / "quarantine.jsonl"
    data = data_config(tmp_path, ("video",), max_bad_samples=2, worker_processes=0 if in_process else None)
    batches = loader(data, ledger=ledger)
    with pytest.raises(InputError, match=r"3 samples could not be read, more than data\.max_bad_samples = 2.*quarantine\.jsonl"):
        take(batches, 20)
    batches.close()


def test_samples_that_do_not_fit_are_skipped_and_do_not_count_as_bad(tmp_path: Path) -> None:
    long = video_sample(0)
    long[1].media[0].markers, long[1].media[0].frame_times = "per_frame", [0.0, 0.125, 0.25, 0.375]
    long[1].messages[0].content = "<|video|>" * 4
    long[1].kind = "realtime"
    write_samples(tmp_path / "video", [long, *(text_sample(i) for i in range(1, 5))])
    stage = stage_config(max_frames_per_pack=2, frames=FrameConfig(fps=1.0, min_frames=1, max_frames=2))
    data = data_config(tmp_path, ("video",), max_bad_samples=0)
    batches = loader(data, stage=stage, ledger=tmp_path / "q.jsonl")
    assert "video/v0000" not in {k for b in keys(take(batches, 8)) for k in b}
    assert [(e["kind"], e["key"]) for e in batches.ledger.entries()] == [("skipped", "v0000")]
    assert "more than the 2 of a pack" in batches.ledger.entries()[0]["reason"]


def test_data_of_which_nothing_fits_end_with_the_reason(tmp_path: Path) -> None:
    write_samples(tmp_path / "realtime", [realtime_sample(i) for i in range(3)])
    stage = stage_config(max_frames_per_pack=2, frames=FrameConfig(fps=1.0, min_frames=1, max_frames=2))
    with pytest.raises(InputError, match=r"no sample of the data can be used.*4 frames are more than the 2"):
        next(loader(data_config(tmp_path, ("realtime",)), stage=stage))


def test_unsound_json_is_listed(tmp_path: Path) -> None:
    import webdataset

    from data_pipeline.shards.energon_index import index_shards

    (tmp_path / "text").mkdir()
    with webdataset.TarWriter(str(tmp_path / "text" / "shard-000000.tar"), encoder=False, mtime=0) as tar:
        for i in range(4):
            body = b'{"kind": "text"' if i == 1 else b'{"kind": "odd", "messages": []}'
            if i > 1:
                body = b'{"kind":"text","messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}'
            tar.write({"__key__": f"t{i}", "json": body})
    index_shards(tmp_path / "text", {"shard-000000.tar": "0"})
    batches = loader(data_config(tmp_path, ("text",)), ledger=tmp_path / "q.jsonl")
    assert {k for b in keys(take(batches, 4)) for k in b} == {"text/t2", "text/t3"}
    assert sorted(e["key"] for e in batches.ledger.entries()) == ["t0", "t1"]


@pytest.mark.parametrize("split", ["train", "validation"])
def test_cut_and_missing_shards_are_named(tmp_path: Path, split: str) -> None:
    write_samples(tmp_path / "text", [text_sample(i) for i in range(8)], samples_per_shard=4)
    shard = tmp_path / "text" / "shard-000001.tar"
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"shard-000001\.tar has 1000 bytes instead of"):
        loader(data_config(tmp_path, ("text",)), split=split)
    shard.unlink()
    with pytest.raises(InputError, match=r"shard-000001\.tar is missing"):
        loader(data_config(tmp_path, ("text",)), split=split)


def test_padding_never_teaches(shards: Path) -> None:
    for batch in take(loader(data_config(shards)), 6):
        padding = batch.sample_keys.index("") if "" in batch.sample_keys else None
        if padding is not None:
            assert (batch.targets[int(batch.cu_seqlens[padding]) :] == IGNORE_INDEX).all()


# what the user can put right


def test_readers_are_shared_out_evenly() -> None:
    assert [readers_per_replica(12, n) for n in (1, 2, 3, 4, 6, 12)] == [12, 6, 4, 3, 2, 1]
    with pytest.raises(InputError, match=r"global_data_workers is 4, which 3 .* may be 1, 2, 4"):
        readers_per_replica(4, 3)


def test_missing_folders_are_named(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    with pytest.raises(InputError, match=r"data\.datasets\[text\]\.path: .*text has no index"):
        loader(data_config(tmp_path, ("text",)))
    with pytest.raises(InputError, match=r"data\.datasets\[image\]\.path: the folder .*image does not exist"):
        loader(data_config(tmp_path, ("image",)))
    with pytest.raises(InputError, match=r"data\.validation\[image\]"):
        loader(data_config(tmp_path, ("image",)), split="validation")


def test_an_empty_mixture_is_explained(shards: Path) -> None:
    with pytest.raises(InputError, match=r"data\.mixture\.video is 1\.0 but data\.datasets has no dataset of this modality"):
        loader(data_config(shards, ("text",), mixture={"video": 1.0}))
    with pytest.raises(InputError, match=r"data\.datasets gives no samples"):
        loader(data_config(shards, ("text",), mixture={"text": 0.0}))


def test_fewer_samples_than_workers_are_refused(tmp_path: Path) -> None:
    write_samples(tmp_path / "text", [text_sample(0)])
    with pytest.raises(InputError, match=r"has 1 samples, fewer than data\.global_data_workers = 2"):
        loader(data_config(tmp_path, ("text",), global_data_workers=2, worker_processes=None))


def test_the_tokenizer_must_be_the_model_s(shards: Path) -> None:
    with pytest.raises(InputError, match=r"has 400 entries .* model\.text\.vocab_size is 500"):
        build_loader(data_config(shards), stage_config(), model_config(vocab_size=500), TOKENIZER)


def test_a_saved_place_fits_its_own_configuration_only(shards: Path) -> None:
    state = loader(data_config(shards)).state_dict()
    for change, name in (({"seed": 1}, r"data\.seed"), ({"packing_buffer": 3}, r"data\.packing_buffer")):
        with pytest.raises(InputError, match=rf"saved place in the data was made with {name} = "):
            loader(data_config(shards, **change)).load_state_dict(state)
    with pytest.raises(InputError, match=r"data\.datasets"):
        loader(data_config(shards, ("text",))).load_state_dict(state)


def test_messages_stay_in_the_chat_form_without_media(shards: Path) -> None:
    batch = next(loader(data_config(shards, ("text",))))
    assert batch.num_frames == 0
    assert torch.equal(batch.frame_begin, batch.frame_end)
    first = batch.input_ids[: int(batch.cu_seqlens[1])]
    text = TOKENIZER.decode(first)
    assert text.startswith("<|begin_of_text|><|start_header_id|>user") and text.endswith("<|eot_id|>")
    assert Message(role="user", content="what ?").content in text
