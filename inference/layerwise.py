"""Logits of a checkpoint folder with the weights of one layer in memory at a time: for checks of models of any size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F

from inference.cache.store import KVStore
from inference.model.folder import OpenTensors
from inference.model.layers import CrossLayer, Residual, SelfLayer
from inference.model.plan import plan_step
from inference.model.rotary import Rotary
from inference.model.rows import FrameRows, RowGroup, StepTensors
from model.config import VideoMllamaConfig
from model.vision.encoder import VisionEncoder

_TEXT = "language_model.model."


@torch.inference_mode()
def folder_logits(
    folder: Path, config: VideoMllamaConfig, tokens: Sequence[int], frames: torch.Tensor, positions: Sequence[int]
) -> torch.Tensor:
    """Runs one session's rows in fp32 on the CPU.

    Args:
        folder: a checkpoint in Hugging Face layout; only its weights are read.
        config: the model.
        tokens: all rows; the image token stands at each of `positions`.
        frames: uint8 [F, 3, S, S].
        positions: row of each frame's image token, ascending.

    Returns:
        fp32 logits [rows, vocab_size].

    Raises:
        InputError: a missing or broken file, or a tensor that is not there.
    """
    tensors = OpenTensors(folder)
    states = _encode(config, tensors, frames)
    store = KVStore(config, torch.device("cpu"), torch.float32, positions=len(tokens), frames=max(1, len(positions)))
    cache = store.new_cache()
    cache.reserve(len(tokens), len(positions))
    visible = [sum(position <= row for position in positions) for row in range(len(tokens))]
    plan = plan_step(
        [RowGroup(cache, tokens, visible, states, positions)],
        page_rows=config.vision.tokens_per_frame,
        attend_all=config.switches.no_visible_rows == "attend_all",
        always_rotate=True,
    )
    rotary = Rotary(config, torch.device("cpu"), torch.float32)
    rows = plan.tensors(torch.device("cpu"))
    cosines = (*rotary(rows.positions), *rotary(rows.query_positions))
    step = StepTensors(rows, *cosines, store.self_pool, store.cross_pool, plan.attends)
    slots = torch.tensor(cache.frame_slots(len(positions)), dtype=torch.int64)
    frames_at = FrameRows(*rotary(torch.tensor(positions, dtype=torch.int64)), slots)
    stream = Residual(F.embedding(torch.tensor(tokens), tensors[f"{_TEXT}embed_tokens.weight"]))
    counts = {SelfLayer: 0, CrossLayer: 0}
    for i in range(config.text.num_hidden_layers):
        kind = CrossLayer if i in config.text.cross_attention_layers else SelfLayer
        layer: SelfLayer | CrossLayer = kind(config.text, f"{_TEXT}layers.{i}.", tensors, counts[kind])
        counts[kind] += 1
        if isinstance(layer, CrossLayer):
            layer.add_frames(states, frames_at, store.cross_pool)
        stream = layer.forward(stream, step)
        del layer
    _, h = stream.norm(tensors[f"{_TEXT}norm.weight"], config.text.rms_norm_eps)
    return F.linear(h, tensors["language_model.lm_head.weight"])


def _encode(config: VideoMllamaConfig, tensors: Mapping[str, torch.Tensor], frames: torch.Tensor) -> torch.Tensor:
    """uint8 frames [F, 3, S, S] -> [F, P, H]."""
    with torch.device("meta"):
        vision = VisionEncoder(config)
    vision.load_state_dict({name: tensors[name] for name in vision.state_dict()}, assign=True)
    states: torch.Tensor = vision.eval()(frames, torch.ones(len(frames), dtype=torch.int64))
    return states
