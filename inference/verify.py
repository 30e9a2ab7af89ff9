"""Replaying recorded generations and streams against a checkpoint folder: the proof that cached decoding is right."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

import torch

from inference.model.load import load_model
from inference.model.rows import RowGroup
from inference.model.video_mllama import VideoMllama
from model.config import SwitchConfig
from model.errors import InputError

_MODES = (("reference", "only_with_new_frames"), ("query_rope_always", "always"))
"""Ending of the recorded name, and the query rotation that it was recorded with."""


def replay_recorded(
    folder: str | Path, io: Mapping[str, torch.Tensor], switches: SwitchConfig | None = None
) -> list[tuple[str, float]]:
    """Replay the `gen_*` and `stream_*` recordings of the golden format in fp32.

    Args:
        folder: a checkpoint in Hugging Face layout.
        io: the recorded tensors, whatever their sizes.
        switches: numerical choices; the query rotation is set by each recording. None takes the recordings'
            own convention, in which rows that see no frame attend to all.

    Returns:
        (name, largest absolute difference of the logits) per recorded quantity; inf where shapes differ or a value is not finite.

    Raises:
        InputError: a recording refers to a tensor that is not there.
    """
    switches = switches or SwitchConfig(no_visible_rows="attend_all")
    model = load_model(folder, switches=switches)
    results: list[tuple[str, float]] = []
    for ending, rotation in _MODES:
        model.config = dataclasses.replace(model.config, switches=dataclasses.replace(switches, decode_query_rope=rotation))
        if f"gen_logits_{ending}" in io:
            results.append((f"gen_logits_{ending}", _difference(_generation(model, io), io[f"gen_logits_{ending}"])))
            if ending == "reference":
                chosen = io["gen_logits_reference"].argmax(-1)
                results.append(("gen_tokens_reference", float((chosen != _need(io, "gen_tokens_reference")).sum())))
        results += _stream(model, io, ending)
    return results


def _generation(model: VideoMllama, io: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Logits of the recorded greedy steps of sample 0, teacher-forced on the recorded tokens."""
    tokens = [int(i) for i in _need(io, "gen_tokens_reference")]
    prompt = [int(i) for i in _need(io, "input_ids")[0]]
    image_id = model.config.image_token_id
    visible = torch.tensor([token == image_id for token in prompt]).cumsum(0).tolist()
    frames = _need(io, "pixel_values")[0].flatten(0, 1)
    aspect_ids = _need(io, "aspect_ratio_ids")[0]
    positions = _need(io, "vision_position_ids")[0].tolist()
    # Padding frames of the batch stay: rows that see no frame attend to them as well.
    cache = model.new_cache()
    rows = [model.run([RowGroup(cache, prompt, visible, model.encode(frames, aspect_ids), positions)])]
    for token in tokens[:-1]:
        rows.append(model.run([RowGroup(cache, [token], [visible[-1]])]))
    return torch.cat(rows)


def _stream(model: VideoMllama, io: Mapping[str, torch.Tensor], ending: str) -> list[tuple[str, float]]:
    steps = sorted(int(m.group(1)) for name in io if (m := re.fullmatch(r"stream_(\d+)_tokens", name)))
    if not steps:
        return []
    frames = _need(io, "pixel_values")[0].flatten(0, 1)
    image_id = model.config.image_token_id
    cache = model.new_cache()
    results = []
    for step in steps:
        tokens = [int(i) for i in io[f"stream_{step}_tokens"]]
        index = _need(io, f"stream_{step}_frames")
        seen = cache.frames
        visible, positions = [], []
        for row, token in enumerate(tokens):
            if token == image_id:
                seen += 1
                positions.append(cache.length + row)
            visible.append(seen)
        states = model.encode(frames[index]) if len(index) else None
        logits = model.run([RowGroup(cache, tokens, visible, states, positions)], every_row=True)
        name = f"stream_{step}_logits_{ending}"
        results.append((name, _difference(logits, _need(io, name))))
    return results


def _difference(ours: torch.Tensor, recorded: torch.Tensor) -> float:
    if ours.shape != recorded.shape or not bool(torch.isfinite(ours).all()):
        return float("inf")
    return float((ours.cpu() - recorded.float()).abs().max())


def _need(io: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    if name not in io:
        raise InputError(f"the recordings have no tensor {name}; use a complete io.safetensors")
    return io[name]
