"""Round trips between run folders and the Hugging Face layout, and what is refused."""

from __future__ import annotations

import json
import re
import resource
import shutil
import signal
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.conversion.folder import read_hf_folder
from model.conversion.tensor_file import TensorInfo
from moss_train.checkpoint.description import read_description
from moss_train.checkpoint.index import INDEX, read_index
from moss_train.checkpoint.publish import complete
from moss_train.checkpoint.tensors import CheckpointTensors
from moss_train.cli.main import main
from moss_train.convert.from_hf import hf_to_checkpoint
from moss_train.convert.progress import ByteProgress
from tests.model.small import small_config
from tests.moss_train.convert.folders import four_by_four, make_foreign, published_folder, stock_config, three_way_config
from tests.ranks import RunRanks

_STEP = "checkpoints/step_00000000"
_FILE = "rank_00000_000.safetensors"


def convert(*arguments: object) -> int:
    """`moss convert ARGUMENTS`."""
    return main(["convert", *map(str, arguments)])


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bf16 folder whose vocabulary needs padding rows, with everything that should survive."""
    root = tmp_path_factory.mktemp("published")
    tokenizer = root / "any.json"
    tokenizer.write_text('{"model": 1}')
    extra = {"frames": {"fps": 2.0, "min_frames": 1, "max_frames": 9}, "template": "mllama"}
    extra["emission"] = {"tokens_per_frame": 9, "fps": 1.0}
    return published_folder(root / "hf", stage="sft_realtime", tokenizer_path=tokenizer, extra=extra)


@pytest.fixture(scope="module")
def converted(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of it."""
    run = tmp_path_factory.mktemp("converted") / "run"
    assert convert("from-hf", published, run, "--no-verify") == 0
    return run


def test_round_trip_keeps_every_bit(published: Path, tmp_path: Path) -> None:
    assert convert("from-hf", published, tmp_path / "run") == 0
    assert convert("to-hf", tmp_path / "run", tmp_path / "back") == 0
    assert (tmp_path / "back/model.safetensors").read_bytes() == (published / "model.safetensors").read_bytes()
    assert (tmp_path / "back/tokenizer.json").read_bytes() == (published / "tokenizer.json").read_bytes()
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (published, tmp_path / "back"))
    assert after.pop("moss_train") == before.pop("moss_train") | {"step": 0}
    assert after == before
    certificates = [json.loads((f / "certificate.json").read_text()) for f in (tmp_path / "run" / _STEP, tmp_path / "back")]
    for certificate in certificates:
        assert certificate["hashes"].keys() == load_file(published / "model.safetensors").keys()
        assert certificate["verification"]["passed"] and certificate["verification"]["logits"]["passed"]
        assert certificate["verification"]["logits"]["largest"] > 0.1
        assert certificate["verification"]["logits"]["closed_gates"] == []
        assert certificate["dtypes"] == {"bfloat16": certificate["tensors"]}
    assert certificates[0]["hashes"] == certificates[1]["hashes"] and certificates[0]["sha256"] == certificates[1]["sha256"]


@pytest.mark.ranks
@pytest.mark.parametrize(("tensor", "pipeline"), [(2, 2), (3, 1)])
def test_any_layout_reads_what_is_written_and_writes_what_is_read(
    tensor: int, pipeline: int, run_ranks: RunRanks, tmp_path: Path
) -> None:
    source = published_folder(tmp_path / "hf", three_way_config() if tensor == 3 else small_config())
    # Tensors are stored in many pieces, whose bounds are not those of the ranks' shares.
    hf_to_checkpoint(source, tmp_path / "run", chunk_bytes=700)
    stored = CheckpointTensors(tmp_path / "run" / _STEP)
    if tensor == 3:
        assert stored.info("embedding.word_embeddings.weight").shape[0] == 112
    relay = tmp_path / "relay"
    run_ranks("tests.moss_train.convert.relay_ranks", tensor * pipeline, tmp_path / "run", relay, tensor, pipeline)
    if tensor == 3:
        assert CheckpointTensors(relay / _STEP).info("embedding.word_embeddings.weight").shape[0] == 120
    assert convert("to-hf", relay, tmp_path / "back", "--no-verify") == 0
    assert (tmp_path / "back/model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    assert convert("verify", relay, source) == 0


def test_a_stock_folder_in_several_files_with_others_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = small_config()
    folder = published_folder(tmp_path / "stock", config, max_file_bytes=40_000)
    make_foreign(folder, stock_config(config))
    companions = {
        "generation_config.json": {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "eos_token_id": [2, 8, 9]},
        "tokenizer_config.json": {"chat_template": "{{ messages }}"},
        "special_tokens_map.json": {"bos_token": "<s>"},
        "preprocessor_config.json": {"max_image_tiles": 4},
        "processor_config.json": {"processor_class": "MllamaProcessor"},
        "tokenizer.json": {"added_tokens": [{"id": 9, "content": "<|eot_id|>"}]},
    }
    for name, content in companions.items():
        (folder / name).write_text(json.dumps(content))
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    # A buffer that some programs store is no weight.
    last = folder / sorted(set(index["weight_map"].values()))[-1]
    save_file(load_file(last) | {"language_model.model.rotary_emb.inv_freq": torch.ones(4)}, str(last))
    assert convert("from-hf", folder, tmp_path / "run", "--no-logits") == 0  # 4 x 4 patches cannot be pooled by 4
    back = tmp_path / "back"
    assert convert("to-hf", tmp_path / "run", back, "--format", "mllama", "--no-logits") == 0
    assert read_hf_folder(back)[0] == four_by_four(config)
    _, before, _ = read_hf_folder(folder)
    _, after, _ = read_hf_folder(back)
    assert set(before) == set(after) and all(torch.equal(before[name], after[name]) for name in before)
    written = {name: json.loads((back / name).read_text()) for name in companions}
    assert written.pop("generation_config.json") == companions.pop("generation_config.json") | {
        "bos_token_id": 1,
        "pad_token_id": 0,
    }
    assert written == companions
    assert not (back / "modeling_video_mllama.py").exists()
    capsys.readouterr()


def test_a_published_video_folder_says_how_it_pools(tmp_path: Path) -> None:
    config = small_config()
    folder = published_folder(tmp_path / "video", config)
    content = stock_config(config) | {"model_type": "video_mllama", "architectures": ["VideoMllamaForConditionalGeneration"]}
    content["vision_config"] |= {"merge_mode": "average", "merge_size": 2}  # type: ignore[operator]
    del content["torch_dtype"]
    make_foreign(folder, content)
    assert convert("from-hf", folder, tmp_path / "run") == 0
    assert convert("to-hf", tmp_path / "run", tmp_path / "back") == 0
    assert json.loads((tmp_path / "back/config.json").read_text())["torch_dtype"] == "bfloat16"
    assert read_hf_folder(tmp_path / "back")[0] == config


def test_the_plain_format_says_what_it_loses(
    published: Path, converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert("to-hf", converted, tmp_path / "plain", "--format", "mllama") == 0
    assert "computes another function" in capsys.readouterr().err
    content = json.loads((tmp_path / "plain/config.json").read_text())
    assert content["model_type"] == "mllama" and "merge_mode" not in content["vision_config"]
    config, tensors, _ = read_hf_folder(tmp_path / "plain")
    _, original, _ = read_hf_folder(published)
    assert all(torch.equal(tensors[name], original[name]) for name in original)
    assert config.text == small_config().text


def test_one_changed_number_is_found_by_name(
    published: Path, converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(published, changed)
    weights = load_file(changed / "model.safetensors")
    name = "language_model.model.layers.1.cross_attn.k_norm.weight"
    weights[name][3] += 0.5
    save_file(weights, str(changed / "model.safetensors"))
    assert convert("verify", converted, changed) == 1
    said = capsys.readouterr().out
    assert f"differs: {name}" in said and "DIFFERS" in said
    assert convert("verify", converted, published) == 0
    said = capsys.readouterr().out
    assert "differs" not in said and "ok" in said


def test_gates_that_hide_weights_from_the_logits_are_named(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(published, tmp_path / "hf")
    weights = load_file(tmp_path / "hf/model.safetensors")
    gates = [
        "language_model.model.layers.1.cross_attn_attn_gate", "vision_model.gated_positional_embedding.gate",
        "vision_model.global_transformer.layers.0.gate_ffn",
    ]  # fmt: skip
    for name in gates:
        weights[name].zero_()
    save_file(weights, str(tmp_path / "hf/model.safetensors"))
    (tmp_path / "hf/certificate.json").unlink(missing_ok=True)
    assert convert("from-hf", tmp_path / "hf", tmp_path / "run") == 0
    assert "3 gates are 0, first " in capsys.readouterr().out
    certificate = json.loads((tmp_path / "run" / _STEP / "certificate.json").read_text())
    assert sorted(certificate["verification"]["logits"]["closed_gates"]) == gates


def test_weights_that_changed_after_their_certificate_are_found(
    converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert("to-hf", converted, tmp_path / "hf", "--no-verify") == 0
    run = tmp_path / "run"
    shutil.copytree(converted, run)
    key = "vision.multi_modal_projector.bias"
    for folder, file in ((tmp_path / "hf", "model.safetensors"), (run / _STEP, _FILE)):
        data = bytearray((folder / file).read_bytes())
        found = load_file(folder / file)[f"{key}@0" if file == _FILE else key.removeprefix("vision.")]
        place = data.index(found.view(torch.uint8).numpy().tobytes())
        data[place] ^= 1
        (folder / file).write_bytes(data)
    assert convert("verify", run, tmp_path / "hf", "--no-logits") == 2
    assert re.search(f"{_FILE} is damaged: {key}, bytes .* does not have the checksum", capsys.readouterr().err)
    _renew_checksums(run / _STEP)
    # Both sides changed alike: only the certificates can tell.
    assert convert("verify", run, tmp_path / "hf", "--no-logits") == 1
    assert capsys.readouterr().out.count("not as certified") == 2


def _renew_checksums(checkpoint: Path) -> None:
    """A change on purpose, such as a tool's."""
    index, description = read_index(checkpoint / INDEX), read_description(checkpoint)
    content = (checkpoint / _FILE).read_bytes()
    for tensor in index.tensors.values():
        size = tensor.info.dtype.itemsize
        parts = [content[p.position : p.position + p.count * size] for p in tensor.pieces]
        tensor.pieces = [replace(p, crc32=zlib.crc32(part)) for p, part in zip(tensor.pieces, parts, strict=True)]
    complete(checkpoint, description, [index])


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Lets no file of this process grow beyond `size` bytes, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_up_ends_in_a_sentence_and_leaves_nothing(
    published: Path, converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (("from-hf", published, tmp_path / "a"), ("to-hf", converted, tmp_path / "b")):
        with files_of_at_most(60_000):
            assert convert(*arguments, "--no-verify") == 2
        assert f"{arguments[2]} cannot be written: File too large; nothing of it was kept" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_conversion_that_is_told_to_end_leaves_nothing(
    published: Path, converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The signal comes when the first rows have been written; a thread that wrote on behind it would get the next one."""
    threads = []

    def advance(*_: object) -> None:
        threads.append(threading.current_thread())
        signal.raise_signal(number)

    monkeypatch.setattr(ByteProgress, "advance", advance)
    (tmp_path / "used").mkdir()
    (tmp_path / "used/notes.txt").write_text("mine")
    before = signal.getsignal(number)
    assert convert("from-hf", published, tmp_path / "used") == 130
    assert convert("from-hf", published, tmp_path / "a") == 130
    assert convert("to-hf", converted, tmp_path / "b") == 130
    assert convert("random", "tiny", tmp_path / "c") == 130
    assert signal.getsignal(number) is before
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "used", tmp_path / "used/notes.txt"]
    assert set(threads) == {threading.main_thread()}


def test_files_beside_the_weights_go_too_where_publishing_fails(published: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/latest").mkdir()  # in the way of the last file that is written
    with pytest.raises(OSError, match="latest"):
        hf_to_checkpoint(published, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["latest"]


def test_room_is_asked_for_first(published: Path, converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                 monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 20))
    for arguments in (
        ("from-hf", published, tmp_path / "a"),
        ("to-hf", converted, tmp_path / "b"),
        ("random", "tiny", tmp_path / "c"),
    ):
        assert convert(*arguments) == 2
        assert "its disk has 0.00 GB free; make room" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_bad_sources_and_targets_are_named(
    published: Path, converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(converted, damaged)
    data = (damaged / _STEP / _FILE).read_bytes()
    (damaged / _STEP / _FILE).write_bytes(data[: len(data) // 2])
    other = published_folder(tmp_path / "other_model", three_way_config())
    unnamed = tmp_path / "unnamed"
    shutil.copytree(converted, unnamed)
    (unnamed / "latest").unlink()
    (unnamed / _STEP / "checkpoint.json").unlink()
    for arguments, named in (
        (["from-hf", published, converted], "already holds a checkpoint"),
        (["from-hf", published, unnamed], "step_00000000 is there, though it holds no whole checkpoint"),
        (["from-hf", published, tmp_path / "other", "--tp", "4"], "num_key_value_heads 2"),
        (["from-hf", published, tmp_path / "other", "--pp", "0"], "--pp is 0"),
        (["from-hf", tmp_path / "none", tmp_path / "other"], "none/config.json does not exist"),
        (["to-hf", tmp_path / "none", tmp_path / "out"], "none does not exist"),
        (["to-hf", tmp_path, tmp_path / "out"], "holds no published checkpoint"),
        (["to-hf", converted, converted], "holds other files than a checkpoint"),
        (["to-hf", converted, tmp_path / "out", "--tokenizer", tmp_path / "no"], "tokenizer"),
        (["to-hf", damaged, tmp_path / "out"], f"{_FILE} is cut short: it ends at byte"),
        (["verify", converted, other], "of different models: text.hidden_size is 32"),
        (["random", "12b", tmp_path / "out"], "MODEL is '12b'; use one of 11b"),
        (["random", tmp_path, tmp_path / "out"], f"MODEL is '{tmp_path}'; use one of 11b"),
        (["to-hf", published / "config.json", tmp_path / "out"], "config.json is a file; give a run folder"),
        (["from-hf", published / "config.json", tmp_path / "other"], "config.json/config.json does not exist; give a folder"),
        (["to-hf", converted, tmp_path / "out", "--base", "x"], "--base is x, which only --adapters writes down"),
    ):
        assert convert(*arguments) == 2
        assert named in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and not (tmp_path / "other").exists()


def test_random_folders_depend_on_the_seed_and_leave_nothing_neutral(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert convert("random", "tiny", tmp_path / name, "--seed", seed, "--dtype", "fp32") == 0
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"]
    assert files[0] == files[1] != files[2]
    _, weights, _ = read_hf_folder(tmp_path / "a")
    for name in weights:
        assert weights.info(name) == TensorInfo(tuple(weights[name].shape), torch.float32)
        assert 0.01 < weights[name].abs().mean() < 2, name
