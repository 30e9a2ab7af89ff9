"""Recorded training quantities replayed on the Megatron model in a parallel layout."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.pipeline_parallel import get_forward_backward_func
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from model.config import VideoMllamaConfig
from model.conversion.folder import FolderWeights, read_hf_folder
from model.conversion.live import gather_hf_weights, load_hf_weights
from model.errors import InputError
from model.loss import sum_losses
from model.rows import IGNORE_INDEX, PackedRows
from model.video_mllama import VideoMllamaDecoder, build_decoder_chunks, make_transformer_config
from model.vision.encoder import VisionEncoder

TOLERANCE = 1e-5
"""Largest absolute difference that counts as equal, in fp32."""

Difference = tuple[str, float]
_INPUTS = (
    "input_ids", "labels", "position_ids", "pixel_values", "aspect_ratio_ids", "cross_attention_mask", "vision_position_ids",
)  # fmt: skip
_OUTPUTS = ("vision_out", "projected", "logits")
_SILENCE_LOSS = re.compile(r"loss_silence(?P<id>\d+)_w(?P<whole>\d+)(?:p(?P<fraction>\d+))?$")


@dataclass
class Golden:
    """A folder of recorded quantities."""

    config: VideoMllamaConfig
    weights: FolderWeights
    io: dict[str, Tensor]


def read_golden(folder: str | Path) -> Golden:
    """Opens config.json, weights.safetensors and io.safetensors; rows without a visible frame follow the recording.

    Raises:
        InputError: a missing or broken file, or a recording without its inputs.
    """
    folder = Path(folder)
    config, weights, _ = read_hf_folder(folder)
    try:
        io = load_file(str(folder / "io.safetensors"))
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder / 'io.safetensors'} cannot be read ({error}); record it again") from error
    for name in _INPUTS:
        if name not in io:
            raise InputError(f"{folder / 'io.safetensors'} lacks {name}; record it again with all inputs")
    if not any(name in _OUTPUTS or name.startswith(("loss", "gen_logits_", "stream_")) for name in io):
        raise InputError(f"{folder / 'io.safetensors'} holds no recorded output such as logits; record it again")
    if io["pixel_values"].dim() != 6 or io["pixel_values"].shape[2] != 1:
        raise InputError(f"pixel_values has shape {list(io['pixel_values'].shape)}; it must be [batch, frames, 1, 3, size, size]")
    switches = dataclasses.replace(config.switches, no_visible_rows="attend_all")
    return Golden(dataclasses.replace(config, switches=switches), weights, io)


def _shifted(labels: Tensor) -> Tensor:
    """labels [B, T] -> the token that each row must predict, flat [B * T]."""
    return torch.cat([labels[:, 1:], labels.new_full((labels.shape[0], 1), IGNORE_INDEX)], dim=1).flatten()


def golden_rows(io: Mapping[str, Tensor], targets: bool, device: torch.device) -> PackedRows:
    """The recorded batch as one packed micro-batch; padding frames belong to their sample like any other frame.

    Raises:
        InputError: a recorded mask under which a row sees anything else than the first frames of its sample.
    """
    batch, length = io["input_ids"].shape
    frames = io["vision_position_ids"].shape[1]
    mask = io["cross_attention_mask"].flatten(3).amax(-1).bool()  # [B, T, F]
    visible = mask.sum(-1)
    if not torch.equal(mask, torch.arange(frames) < visible[..., None]):
        raise InputError("cross_attention_mask lets a row see a frame but not the ones before it; only prefixes can be replayed")
    first = (torch.arange(batch) * frames)[:, None].expand(batch, length)
    return PackedRows(
        input_ids=io["input_ids"].flatten().to(device),
        position_ids=io["position_ids"].flatten().to(device),
        cu_seqlens=torch.arange(0, (batch + 1) * length, length, dtype=torch.int32, device=device),
        cu_frames=torch.arange(0, batch * frames + 1, frames, dtype=torch.int32, device=device)
        if frames
        else torch.zeros(batch + 1, dtype=torch.int32, device=device),
        frame_begin=first.flatten().int().to(device),
        frame_end=(first + visible).flatten().int().to(device),
        frame_positions=io["vision_position_ids"].flatten().to(device),
        targets=_shifted(io["labels"]).to(device) if targets else None,
    )


def _difference(ours: Tensor, recorded: Tensor) -> float:
    """Largest absolute difference; infinite where sizes differ or a value is not a number."""
    if ours.numel() != recorded.numel():
        return float("inf")
    worst = (ours.detach().float().cpu().flatten() - recorded.float().flatten()).abs().max().item() if ours.numel() else 0.0
    return worst if worst == worst else float("inf")


def _run(decoder: VideoMllamaDecoder, rows: PackedRows, frame_states: Tensor) -> Tensor | None:
    """One forward pass through all pipeline stages; the result on the last stage, None elsewhere."""

    def step(_: Iterator[Any], chunk: Any) -> tuple[Tensor, Callable[..., Tensor]]:
        return chunk(rows, frame_states), lambda output, **_kw: output

    found = get_forward_backward_func()(
        forward_step_func=step, data_iterator=iter(()), model=decoder, num_microbatches=1, seq_length=rows.num_rows,
        micro_batch_size=1, forward_only=True, collect_non_loss_data=True,
    )  # fmt: skip
    return found[0] if found else None


def _decoder_differences(golden: Golden, decoder: VideoMllamaDecoder, frame_states: Tensor) -> list[Difference]:
    """logits and losses, on the ranks of the last stage; an empty list elsewhere."""
    device = frame_states.device
    logits = _run(decoder, golden_rows(golden.io, targets=False, device=device), frame_states)
    rows = golden_rows(golden.io, targets=True, device=device)
    losses = _run(decoder, rows, frame_states)
    if logits is None or losses is None or rows.targets is None:
        return []
    found = [("logits", _difference(logits, golden.io["logits"]))] if "logits" in golden.io else []
    for name, recorded in golden.io.items():
        weighted = _SILENCE_LOSS.match(name)
        if name == "loss":
            sums = sum_losses(losses, rows.targets)
        elif weighted:
            weight = float(f"{weighted['whole']}.{weighted['fraction'] or 0}")
            sums = sum_losses(losses, rows.targets, silence_id=int(weighted["id"]), silence_weight=weight)
        else:
            continue
        found.append((name, _difference(sums.total / sums.count.clamp(min=1), recorded)))
    return found


def replay_training(
    golden: Golden, *, tensor: int, pipeline: int, device: torch.device
) -> tuple[list[Difference], dict[str, Tensor] | None]:
    """Builds the model in this layout, loads the weights and replays what training computes.

    megatron-core's parallel state must be initialised with the same sizes.

    Returns:
        (name, largest absolute difference) of vision_out, projected, logits and losses, the same on every rank; and
        on rank 0 the weights gathered back out of the live model.

    Raises:
        InputError: sizes that do not fit the model, or weights of another model.
    """
    decoder_config = make_transformer_config(golden.config, tensor=tensor, pipeline=pipeline)
    chunks = build_decoder_chunks(golden.config, decoder_config)
    vision = VisionEncoder(golden.config).to(device)
    load_hf_weights(chunks, vision, golden.weights)
    vision.eval()
    for chunk in chunks:
        chunk.eval()
    with torch.no_grad():
        pixels = golden.io["pixel_values"].flatten(0, 2).to(device)
        aspect_ids = golden.io["aspect_ratio_ids"].flatten().to(device)
        vision_out = vision.tower(pixels, aspect_ids)
        projected = vision.project(vision_out)
        found = [
            (name, _difference(value, golden.io[name]))
            for name, value in (("vision_out", vision_out), ("projected", projected))
            if name in golden.io
        ]
        last = _decoder_differences(golden, chunks[0], projected)
    everyone: list[list[Difference]] = [[]] * dist.get_world_size()
    dist.all_gather_object(everyone, found + last)
    return worst_by_name(everyone), gather_hf_weights(chunks, vision)


def worst_by_name(lists: list[list[Difference]]) -> list[Difference]:
    """The largest difference of every quantity over all ranks, in order of first appearance."""
    worst: dict[str, float] = {}
    for name, value in (entry for found in lists for entry in found):
        worst[name] = max(value, worst.get(name, 0.0))
    return list(worst.items())
