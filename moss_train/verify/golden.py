"""Recorded training quantities replayed on the Megatron model in a parallel layout."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.transformer.transformer_config import TransformerConfig
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from model.config import VideoMllamaConfig
from model.context_rows import RowShare, share_rows
from model.conversion.folder import FolderWeights, read_hf_folder
from model.conversion.live import gather_hf_weights, load_hf_weights
from model.errors import InputError
from model.loss import sum_losses
from model.rows import IGNORE_INDEX, PackedRows, frame_share
from model.video_mllama import VideoMllamaDecoder, build_decoder_chunks, make_transformer_config
from model.vision.encoder import VisionEncoder
from moss_train.config.schema import ParallelConfig

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


def golden_rows(io: Mapping[str, Tensor], targets: bool, device: torch.device, multiple: int = 1) -> PackedRows:
    """The recorded batch as one packed micro-batch; padding frames belong to their sample like any other frame.

    Args:
        io: the recording.
        targets: whether to take the labels; logits are computed without.
        device: where the rows go.
        multiple: what the number of rows must be a multiple of; a sample of padding behind the others makes it so.

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
    pad = -batch * length % multiple

    def rows(values: Tensor, fill: int) -> Tensor:
        return torch.cat([values.flatten(), values.new_full((pad,), fill)]).to(device)

    bounds = list(range(0, (batch + 1) * length, length)) + [batch * length + pad] * bool(pad)
    frame_bounds = [sample * frames for sample in range(batch + 1)] + [batch * frames] * bool(pad)
    return PackedRows(
        input_ids=rows(io["input_ids"], 0),
        position_ids=torch.cat([io["position_ids"].flatten(), torch.arange(pad)]).to(device),
        cu_seqlens=torch.tensor(bounds, dtype=torch.int32, device=device),
        cu_frames=torch.tensor(frame_bounds, dtype=torch.int32, device=device),
        frame_begin=rows(first, batch * frames).int(),
        frame_end=rows(first + visible, batch * frames).int(),
        frame_positions=io["vision_position_ids"].flatten().to(device),
        targets=rows(_shifted(io["labels"]), IGNORE_INDEX) if targets else None,
    )


def _difference(ours: Tensor, recorded: Tensor) -> float:
    """Largest absolute difference; infinite where sizes differ or a value is not a number."""
    if ours.numel() != recorded.numel():
        return float("inf")
    worst = (ours.detach().float().cpu().flatten() - recorded.float().flatten()).abs().max().item() if ours.numel() else 0.0
    return worst if worst == worst else float("inf")


def _run(chunks: Sequence[VideoMllamaDecoder], rows: PackedRows, frame_states: Tensor | None) -> Tensor | None:
    """One forward pass through all pipeline stages; the result on the last stage, None elsewhere."""

    def step(_: Iterator[Any], chunk: Any) -> tuple[Tensor, Callable[..., Tensor]]:
        return chunk(rows, frame_states), lambda output, **_kw: output

    virtual = len(chunks) > 1
    config = chunks[0].config
    found = get_forward_backward_func()(
        forward_step_func=step,
        data_iterator=[iter(()) for _ in chunks] if virtual else iter(()),
        model=list(chunks) if virtual else chunks[0],
        # The interleaved schedule takes whole rounds of micro-batches: the same one again.
        num_microbatches=config.pipeline_model_parallel_size if virtual else 1,
        seq_length=rows.num_rows,
        micro_batch_size=1,
        forward_only=True,
        collect_non_loss_data=True,
    )
    return found[0] if found else None


class _Replay:
    """The decoder's part of a recording in one layout."""

    def __init__(self, golden: Golden, chunks: Sequence[VideoMllamaDecoder], sizes: ParallelConfig, projected: Tensor) -> None:
        self._golden, self._chunks, self._sizes = golden, chunks, sizes
        self._device = projected.device
        group = parallel_state.get_context_parallel_group()
        self._context_group, self._context_rank = group, group.rank()
        first, last = frame_share(len(projected), group.size(), group.rank())
        self._states = projected[first:last] if len(projected) else None

    def _forward(self, targets: bool) -> tuple[Tensor | None, RowShare]:
        """Logits or losses on the last stage, and which rows they are of."""
        multiple = self._sizes.tensor if self._sizes.sequence_parallel else 1
        rows = golden_rows(self._golden.io, targets, self._device, multiple)
        (share,) = share_rows([rows], self._sizes.context, self._context_rank, multiple)
        return _run(self._chunks, share.rows, self._states), share

    def _mean_loss(self, losses: Tensor, targets: Tensor, silence_id: int | None = None, weight: float = 1.0) -> Tensor:
        """Over the rows of all context ranks."""
        sums = sum_losses(losses, targets, silence_id=silence_id, silence_weight=weight)
        both = torch.stack([sums.total.double(), sums.count.double()])
        dist.all_reduce(both, group=self._context_group)
        return both[0] / both[1].clamp(min=1)

    def differences(self) -> list[Difference]:
        """logits and losses, on the ranks of the last stage; an empty list elsewhere."""
        io = self._golden.io
        logits, share = self._forward(targets=False)
        losses, loss_share = self._forward(targets=True)
        if logits is None or losses is None or loss_share.targets is None:
            return []
        found = []
        if "logits" in io:
            placed = logits if share.places is None else logits[share.places.to(logits.device)]
            found.append(("logits", _difference(placed[: io["input_ids"].numel()], io["logits"])))
        for name, recorded in io.items():
            weighted = _SILENCE_LOSS.match(name)
            if name == "loss":
                mean = self._mean_loss(losses, loss_share.targets)
            elif weighted:
                weight = float(f"{weighted['whole']}.{weighted['fraction'] or 0}")
                mean = self._mean_loss(losses, loss_share.targets, int(weighted["id"]), weight)
            else:
                continue
            found.append((name, _difference(mean, recorded)))
        return found


def check_layout(config: VideoMllamaConfig, sizes: ParallelConfig) -> TransformerConfig:
    """The decoder's configuration in this layout.

    Raises:
        InputError: sizes that do not fit the model.
    """
    return make_transformer_config(
        config,
        tensor=sizes.tensor,
        pipeline=sizes.pipeline,
        virtual_pipeline=sizes.virtual_pipeline,
        context=sizes.context,
        sequence_parallel=sizes.sequence_parallel,
    )


def replay_training(
    golden: Golden, sizes: ParallelConfig, device: torch.device
) -> tuple[list[Difference], dict[str, Tensor] | None]:
    """Builds the model in this layout, loads the weights and replays what training computes.

    megatron-core's parallel state must be initialised with the same sizes.

    Returns:
        (name, largest absolute difference) of vision_out, projected, logits and losses, the same on every rank; and
        on rank 0 the weights gathered back out of the live model.

    Raises:
        InputError: sizes that do not fit the model, or weights of another model.
    """
    chunks = build_decoder_chunks(golden.config, check_layout(golden.config, sizes))
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
        last = _Replay(golden, chunks, sizes, projected).differences()
    everyone: list[list[Difference]] = [[]] * dist.get_world_size()
    dist.all_gather_object(everyone, found + last)
    return worst_by_name(everyone), gather_hf_weights(chunks, vision)


def worst_by_name(lists: list[list[Difference]]) -> list[Difference]:
    """The largest difference of every quantity over all ranks, in order of first appearance."""
    worst: dict[str, float] = {}
    for name, value in (entry for found in lists for entry in found):
        worst[name] = max(value, worst.get(name, 0.0))
    return list(worst.items())
