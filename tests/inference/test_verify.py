"""Replaying recordings: exact ones pass, wrong ones are seen."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from inference.model.load import load_model
from inference.verify import replay_recorded
from model.config import SwitchConfig
from model.errors import InputError
from tests.inference.checkpoints import random_tensors, tiny_config, write_checkpoint
from tests.inference.oracle import full_forward

CONFIG = tiny_config(vocab_size=40)
IMAGE = CONFIG.image_token_id
BLIND = SwitchConfig(no_visible_rows="attend_all")


def test_recorded_reference(reference_data: Path, tmp_path: Path) -> None:
    golden = reference_data / "golden_tiny"
    shutil.copy(golden / "config.json", tmp_path / "config.json")
    shutil.copy(golden / "weights.safetensors", tmp_path / "model.safetensors")
    results = dict(replay_recorded(tmp_path, load_file(str(golden / "io.safetensors"))))
    assert len(results) == 13
    assert max(results.values()) <= 1e-5, results


def _recordings(folder: Path, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Recordings of other sizes than the reference's, made with the cache-free restatement."""
    model = load_model(folder, switches=BLIND)
    prompt = [1, 5, IMAGE, 6, IMAGE, 7, IMAGE, 8]
    io = {
        "pixel_values": torch.randn(1, 3, 1, 3, 28, 28, generator=torch.Generator().manual_seed(1)),
        "aspect_ratio_ids": torch.ones(1, 3, dtype=torch.int64),
        "input_ids": torch.tensor([prompt]),
        "vision_position_ids": torch.tensor([[2, 4, 6]]),
        "gen_tokens_reference": torch.empty(0, dtype=torch.int64),
    }
    states = model.encode(io["pixel_values"][0, :, 0])
    for ending, rotates in (("reference", False), ("query_rope_always", True)):
        tokens, rows = list(prompt), []
        for step in range(4):
            rotated = [True] * len(prompt) + [rotates] * step
            rows.append(full_forward(model.config, weights, tokens, states, rotated, [3] * len(tokens))[-1].float())
            chosen = int(rows[-1].argmax()) if ending == "reference" else int(io["gen_tokens_reference"][step])
            tokens.append(chosen)
        io[f"gen_logits_{ending}"] = torch.stack(rows)
        io["gen_tokens_reference"] = torch.tensor(tokens[len(prompt) :])
    return io


def test_own_recordings_of_other_sizes_and_a_wrong_weight(tmp_path: Path) -> None:
    weights = random_tensors(CONFIG, seed=4)
    folder = write_checkpoint(tmp_path / "a", CONFIG, tensors=weights)
    io = _recordings(folder, weights)
    results = dict(replay_recorded(folder, io))
    assert set(results) == {"gen_logits_reference", "gen_tokens_reference", "gen_logits_query_rope_always"}
    assert max(results.values()) <= 1e-5, results
    spoiled = dict(weights)
    name = "language_model.model.layers.3.cross_attn.k_norm.weight"
    spoiled[name] = spoiled[name].flip(0)
    results = dict(replay_recorded(write_checkpoint(tmp_path / "b", CONFIG, tensors=spoiled), io))
    assert results["gen_logits_reference"] > 1e-3


def test_incomplete_recordings_are_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, CONFIG)
    with pytest.raises(InputError, match="no tensor pixel_values"):
        replay_recorded(folder, {"stream_0_tokens": torch.tensor([1])})
