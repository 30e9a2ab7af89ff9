"""`moss verify golden`: recorded folders, one made here of other sizes from plain restatements, and bad ones."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.config import VideoMllamaConfig
from model.rows import PackedRows
from moss_train.cli.main import main
from moss_train.config.schema import ParallelConfig
from moss_train.parallel.spawn import run_on_ranks
from moss_train.verify.golden import TOLERANCE
from tests.model.oracle import oracle_logits
from tests.model.oracle_tower import restated_tower
from tests.model.small import lively_weights, small_config, with_text
from tests.ranks import Answer

BATCH, LENGTH, FRAMES, STEPS = 3, 9, 2, 3
SILENCE, WEIGHT = 7, 0.25


def _rows(ids: list[int], frame_positions: list[int], config: VideoMllamaConfig) -> PackedRows:
    """One sequence in which a frame is visible from its image token on."""
    tokens = torch.tensor(ids)
    seen = (tokens == config.image_token_id).cumsum(0)
    return PackedRows(
        input_ids=tokens, position_ids=torch.arange(len(ids)), cu_seqlens=torch.tensor([0, len(ids)]),
        cu_frames=torch.tensor([0, len(frame_positions)]), frame_begin=torch.zeros_like(tokens), frame_end=seen,
        frame_positions=torch.tensor(frame_positions, dtype=torch.long),
    )  # fmt: skip


def _states(pixels: Tensor, ids: Tensor, weights: dict[str, Tensor], config: VideoMllamaConfig) -> tuple[Tensor, Tensor]:
    double = {n.removeprefix("vision_model."): t.double() for n, t in weights.items() if n.startswith("vision_model.")}
    out = restated_tower(pixels.double(), ids, double, config)
    grid, stride = config.vision.grid_size, config.vision.pool_stride
    squares = out[:, 1:].unflatten(1, (grid, grid)).movedim(-1, 1)
    pooled = torch.cat([out[:, :1], F.avg_pool2d(squares, stride).flatten(2).mT], dim=1)
    w, b = (weights[f"multi_modal_projector.{n}"].double() for n in ("weight", "bias"))
    return out, pooled @ w.T + b


def _write(folder: Path, **text: int) -> None:
    config = with_text(small_config(no_visible_rows="attend_all"), **text)
    weights = lively_weights(config, 5)
    image = config.image_token_id
    ids = torch.randint(10, 90, (BATCH, LENGTH), generator=torch.Generator().manual_seed(1))
    ids[0, 2] = ids[0, 5] = ids[1, 4] = image  # sample 1 has one padding frame, sample 2 two
    aspect = torch.tensor([[1, 1], [1, 0], [0, 0]])
    positions = torch.tensor([[2, 5], [4, 0], [0, 0]])
    pixels = torch.randn(BATCH, FRAMES, 1, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    mask = torch.stack([((ids == image).cumsum(1) > f).long() for f in range(FRAMES)], dim=-1)
    vision_out, projected = _states(pixels.flatten(0, 2), aspect.flatten(), weights, config)
    states = projected.unflatten(0, (BATCH, FRAMES))
    samples = [_rows(ids[i].tolist(), positions[i].tolist(), config) for i in range(BATCH)]
    logits = torch.stack([oracle_logits(rows, states[i], weights, config) for i, rows in enumerate(samples)])
    labels = torch.where(ids == image, -100, ids)
    labels[:, :2] = -100
    labels[0, 7] = labels[2, 4] = SILENCE
    losses = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, reduction="none")
    counted, silent = labels[:, 1:].flatten() != -100, labels[:, 1:].flatten() == SILENCE
    weighted = torch.where(silent, losses * WEIGHT, losses)

    prompt, generated, cached, steps = ids[0].tolist(), [], [], []
    for _ in range(STEPS):  # greedy with cached steps left unrotated, as the reference decodes
        rows = _rows(prompt + generated, [2, 5], config)
        first = torch.arange(rows.num_rows) < LENGTH
        cached.append(oracle_logits(rows, states[0], weights, config, rotated=first)[-1])
        steps.append(oracle_logits(rows, states[0], weights, config)[-1])
        generated.append(int(cached[-1].argmax()))

    skipping = with_text(small_config(no_visible_rows="skip"), **text)
    said, shown = [[11, 12, 13], [image, 14], [15]], [[], [0], []]
    flat = [token for part in said for token in part]
    rows = _rows(flat, [3], skipping)
    whole = oracle_logits(rows, states[0, :1], weights, skipping)
    with_new = torch.tensor([bool(frames) for part, frames in zip(said, shown, strict=True) for _ in part])
    partly = oracle_logits(rows, states[0, :1], weights, skipping, rotated=with_new)
    io = {
        "input_ids": ids, "labels": labels, "position_ids": torch.arange(LENGTH).repeat(BATCH, 1), "pixel_values": pixels,
        "aspect_ratio_ids": aspect, "vision_position_ids": positions, "cross_attention_mask": mask[..., None],
        "vision_out": vision_out.view(BATCH, FRAMES, 1, *vision_out.shape[1:]), "projected": states, "logits": logits,
        "loss": losses.sum()[None] / counted.sum(), f"loss_silence{SILENCE}_w0p25": weighted.sum()[None] / counted.sum(),
        "gen_tokens_reference": torch.tensor(generated), "gen_logits_query_rope_always": torch.stack(steps),
        "gen_logits_reference": torch.stack(cached),
    }  # fmt: skip
    done = 0
    for i, (part, frames) in enumerate(zip(said, shown, strict=True)):
        io[f"stream_{i}_tokens"], io[f"stream_{i}_frames"] = torch.tensor(part), torch.tensor(frames, dtype=torch.long)
        io[f"stream_{i}_logits_query_rope_always"] = whole[done : done + len(part)]
        io[f"stream_{i}_logits_reference"] = partly[done : done + len(part)]
        done += len(part)
    folder.mkdir(exist_ok=True)
    save_file(
        {n: t.contiguous().float() if t.is_floating_point() else t.contiguous() for n, t in io.items()}, folder / "io.safetensors"
    )
    save_file(weights, folder / "weights.safetensors")
    (folder / "config.json").write_text(json.dumps(config.to_hf("mllama") | {"vision_config": config.to_hf()["vision_config"]}))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden") / "made"
    _write(folder)
    return folder


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four heads of keys and values, which tensor parallel 4 divides."""
    folder = tmp_path_factory.mktemp("golden") / "wide"
    _write(folder, num_attention_heads=8, num_key_value_heads=4)
    return folder


def _lines(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    return {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}


EXPECTED = {"vision_out", "projected", "logits", "loss", "loss_silence7_w0p25", "gen_tokens_reference"} | {
    f"{name}_logits_{mode}" for name in ("gen", "stream_0", "stream_1", "stream_2") for mode in ("reference", "query_rope_always")
}


def test_a_folder_of_other_sizes_replays(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "golden", str(made)]) == 0
    lines = _lines(capsys)
    assert set(lines) >= EXPECTED
    assert all(lines[name].endswith("ok") for name in EXPECTED)


@pytest.mark.ranks
def test_it_replays_in_a_process_that_has_imported_nothing(made: Path) -> None:
    """As the command starts it; the layouts below are of forks, which have the platform already."""
    sizes = json.dumps(dataclasses.asdict(ParallelConfig()))
    answer = run_on_ranks("moss_train.cli.golden_ranks", 1, [made, sizes], device="cpu")
    assert {name for name, value in answer if value <= TOLERANCE} >= EXPECTED


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch, answer_of_ranks: Answer) -> None:
    """The same without the start of the ranks."""
    monkeypatch.setattr("moss_train.parallel.spawn.run_on_ranks", answer_of_ranks)


@pytest.mark.ranks
@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize(
    ("folder", "layout"),
    [
        ("made", ["--pp", "2", "--vpp", "2"]),
        ("made", ["--tp", "2", "--sp", "--cp", "2"]),  # 27 rows: neither divides them
        ("wide", ["--tp", "4"]),
    ],
)
def test_it_replays_in_every_kind_of_layout(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str], folder: str, layout: list[str]
) -> None:
    assert main(["verify", "golden", str(request.getfixturevalue(folder)), *layout]) == 0
    assert set(_lines(capsys)) >= EXPECTED


@pytest.mark.parametrize(("name", "change"), [("logits", 1e-3), ("loss_silence7_w0p25", 1e-3), ("projected", float("nan"))])
def test_a_recorded_quantity_that_differs_fails(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, change: float
) -> None:
    io = load_file(made / "io.safetensors")
    io[name].view(-1)[0] += change
    for file in ("config.json", "weights.safetensors"):
        (tmp_path / file).symlink_to(made / file)
    save_file(io, tmp_path / "io.safetensors")
    assert main(["verify", "golden", str(tmp_path)]) == 1
    lines = _lines(capsys)
    assert lines[name].endswith("DIFFERS") and lines["vision_out"].endswith("ok")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--tp", "3"], "num_attention_heads 4"),
        (["--pp", "9"], "num_hidden_layers is 5"),
        (["--tp", "4"], "parallel.tensor is 4, which does not divide text.num_key_value_heads 2"),
        (["--pp", "3", "--vpp", "2"], "num_hidden_layers is 5"),
        (["--vpp", "2"], "needs at least 2 pipeline stages"),
        (["--sp"], "set parallel.tensor to 2 or more"),
        (["--tp", "0"], "--tp is 0"),
        (["--cp", "0"], "--cp is 0"),
    ],
)
def test_layouts_that_do_not_fit_are_refused(
    made: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    assert main(["verify", "golden", str(made), *arguments]) == 2
    assert named in capsys.readouterr().err


def test_missing_recordings_are_named(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    io = load_file(made / "io.safetensors")
    del io["labels"]
    for file in ("config.json", "weights.safetensors"):
        (tmp_path / file).symlink_to(made / file)
    save_file(io, tmp_path / "io.safetensors")
    assert main(["verify", "golden", str(tmp_path)]) == 2
    assert "lacks labels" in capsys.readouterr().err
    bare = {"input_ids", "labels", "position_ids", "pixel_values", "aspect_ratio_ids"}
    bare |= {"cross_attention_mask", "vision_position_ids"}
    save_file({n: t for n, t in load_file(made / "io.safetensors").items() if n in bare}, tmp_path / "io.safetensors")
    assert main(["verify", "golden", str(tmp_path)]) == 2
    assert "holds no recorded output" in capsys.readouterr().err
    assert main(["verify", "golden", str(tmp_path / "nowhere")]) == 2
    assert "nowhere/config.json does not exist" in capsys.readouterr().err


@pytest.mark.ranks
@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("layout", [[], ["--tp", "2"], ["--pp", "4"]])
def test_the_reference_s_recordings_replay(reference_data: Path, capsys: pytest.CaptureFixture[str], layout: list[str]) -> None:
    assert main(["verify", "golden", str(reference_data / "golden_tiny"), *layout]) == 0
    assert "18 of 18 quantities" in capsys.readouterr().out
