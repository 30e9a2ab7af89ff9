"""Logits of a checkpoint from the real training decoder, with the weights of one layer in memory at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from model.config import VideoMllamaConfig
from model.conversion.live import live_parameters
from model.conversion.stream import ParameterRows, whole_parameter
from model.conversion.table import VISION_KEY, all_rules
from model.rows import PackedRows
from model.text.provider import torch_provider
from model.text.transformer_config import make_transformer_config
from model.video_mllama import VideoMllamaDecoder
from model.vision.encoder import VisionEncoder
from moss_train.config.schema import ParallelConfig
from moss_train.parallel.layout import start_layout, stop_layout
from moss_train.parallel.world import start_world, stop_world


class _Lender:
    """Gives a part of the decoder its weights when it is called and takes them away when it is done."""

    def __init__(self, decoder: VideoMllamaDecoder, parameters: ParameterRows) -> None:
        self._parameters = parameters
        self._keys = {id(parameter): name for name, parameter in live_parameters([decoder])}
        inner: Any = decoder.decoder
        for part in (decoder.embedding, *inner.layers, inner.final_layernorm, decoder.output_layer):
            self._serve(part)

    def _serve(self, part: nn.Module) -> None:
        places = [(m, n, p) for m in part.modules() for n, p in m.named_parameters(recurse=False)]

        def lend(*_: Any) -> None:
            for module, name, empty in places:
                module._parameters[name] = nn.Parameter(self._value(empty), requires_grad=False)

        def take_back(*_: Any) -> None:
            for module, name, empty in places:
                module._parameters[name] = empty

        part.register_forward_pre_hook(lend)
        part.register_forward_hook(take_back)

    def _value(self, empty: nn.Parameter) -> Tensor:
        found = whole_parameter(self._parameters, self._keys[id(empty)]).to(empty.dtype)
        rows = empty.shape[0]
        if found.shape[0] < rows:
            # Another tensor-parallel size padded the vocabulary to fewer rows; none of them reaches a logit.
            found = torch.cat([found, found.new_zeros(rows - found.shape[0], *found.shape[1:])])
        return found[:rows]


def _vision_states(config: VideoMllamaConfig, parameters: ParameterRows, frames: Tensor) -> Tensor:
    """uint8 frames [F, 3, S, S] -> [F, P, H] in fp32."""
    with torch.device("meta"):
        vision = VisionEncoder(config)
    state = {name: whole_parameter(parameters, VISION_KEY + name).float() for name in vision.state_dict()}
    vision.load_state_dict(state, assign=True)
    states: Tensor = vision.eval()(frames, torch.ones(len(frames), dtype=torch.int64))
    return states


def closed_gates(config: VideoMllamaConfig, parameters: ParameterRows) -> list[str]:
    """Published names of the gates that are 0: what lies behind them reaches no logit, so that logits do not check it."""
    found: list[str] = []
    for rule in all_rules(config):
        name = rule.megatron.rpartition(".")[2]
        is_gate = name.startswith("gate") or name.endswith("gate")
        if is_gate and rule.fusion == "copy" and not whole_parameter(parameters, rule.megatron).any():
            found += rule.hf
    return found


@torch.no_grad()
def checkpoint_logits(
    config: VideoMllamaConfig, parameters: ParameterRows, tokens: Sequence[int], frames: Tensor, positions: Sequence[int]
) -> Tensor:
    """Runs one sample through megatron-core's modules in fp32 on the CPU, in a world of one rank.

    Args:
        config: the model.
        parameters: the checkpoint's weights.
        tokens: rows of the sample; the image token stands at each of `positions`.
        frames: uint8 [F, 3, S, S].
        positions: row of each frame's image token, ascending.

    Returns:
        fp32 logits [rows, vocab_size].
    """
    device = torch.device("cpu")
    start_world(device)
    try:
        start_layout(ParallelConfig(), device, seed=1)
        states = _vision_states(config, parameters, frames)
        decoder_config = make_transformer_config(config)
        decoder_config.perform_initialization, decoder_config.use_cpu_initialization = False, True
        with torch.device("meta"):
            decoder = VideoMllamaDecoder(
                config, decoder_config, pre_process=True, post_process=True, provider=torch_provider()
            ).eval()  # fmt: skip
        _Lender(decoder, parameters)
        logits: Tensor = decoder(_one_sample(tokens, positions), states)
    finally:
        stop_layout()
        stop_world()
    return logits.float()


def _one_sample(tokens: Sequence[int], positions: Sequence[int]) -> PackedRows:
    rows = len(tokens)
    seen = [sum(position <= row for position in positions) for row in range(rows)]
    return PackedRows(
        input_ids=torch.tensor(tokens), position_ids=torch.arange(rows), cu_seqlens=torch.tensor([0, rows], dtype=torch.int32),
        cu_frames=torch.tensor([0, len(positions)], dtype=torch.int32), frame_begin=torch.zeros(rows, dtype=torch.int32),
        frame_end=torch.tensor(seen, dtype=torch.int32), frame_positions=torch.tensor(positions, dtype=torch.int64),
    )  # fmt: skip
