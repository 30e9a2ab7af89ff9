"""Run by torchrun: forward, gradients and weights of layouts against one rank.

Usage: layouts_ranks CASE... with a case as `tp2`, `tp2_sp`, `pp2_vpp2`, `cp2`, ... of `LAYOUTS`; `cp2:attend_all` with that
treatment of rows without frames, `cp2:recompute` with full recomputation, `cp2:frozen` with a frozen decoder.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from moss_train import platform

platform.install()

from megatron.core import parallel_state  # noqa: E402
from megatron.core.pipeline_parallel import get_forward_backward_func  # noqa: E402

from model.context_rows import share_rows  # noqa: E402
from model.conversion import gather_hf_weights, load_hf_weights  # noqa: E402
from model.errors import InputError  # noqa: E402
from model.rows import PackedRows, frame_share  # noqa: E402
from model.video_mllama import build_decoder_chunks, make_transformer_config  # noqa: E402
from model.vision.encoder import VisionEncoder  # noqa: E402
from moss_train.config.schema import ParallelConfig  # noqa: E402
from moss_train.parallel.layout import start_layout, stop_layout  # noqa: E402
from moss_train.parallel.world import start_world, stop_world  # noqa: E402
from tests.model.small import lively_weights, packed_rows, random_states, small_config  # noqa: E402

LAYOUTS: dict[str, dict[str, Any]] = {
    "one": {},
    "tp2": {"tensor": 2},
    "tp2_sp": {"tensor": 2, "sequence_parallel": True},
    "pp2": {"pipeline": 2},
    "pp2_vpp2": {"pipeline": 2, "virtual_pipeline": 2},
    "cp2": {"context": 2},
    "cp3": {"context": 3},
    "cp4": {"context": 4},
    "tp2_cp2": {"tensor": 2, "context": 2},
    "tp2_sp_cp2": {"tensor": 2, "sequence_parallel": True, "context": 2},
    "pp2_cp2": {"pipeline": 2, "context": 2},
    "pp2_vpp2_cp2": {"pipeline": 2, "virtual_pipeline": 2, "context": 2},
}
SAMPLES: list[list[tuple[int, list[int]]]] = [[(9, [2, 5, 6]), (6, []), (7, [1]), (8, [0, 7])], [(14, []), (16, [3])], [(30, [])]]
"""Three micro-batches of 30 rows; the last has no frames."""


def _gradient(parameter: torch.nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _sum_partial_gradients(chunks: list[Any]) -> None:
    """What megatron-core's finalize_model_grads does for parameters that see a share of heads or rows."""
    for chunk in chunks:
        for name, parameter in chunk.named_parameters():
            if parallel_state.get_context_parallel_world_size() > 1:
                parameter.grad = _gradient(parameter)
                dist.all_reduce(parameter.grad, group=parallel_state.get_context_parallel_group())
            partial = "q_layernorm" in name or "k_layernorm" in name
            if partial or (chunk.config.sequence_parallel and getattr(parameter, "sequence_parallel", False)):
                parameter.grad = _gradient(parameter)
                dist.all_reduce(parameter.grad, group=parallel_state.get_tensor_model_parallel_group())


def _whole_gradient(leaf: Tensor, frames: int) -> Tensor:
    """Gradient of all frames: pipeline stages hold parts of it, context ranks the frames of their share."""
    gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
    dist.all_reduce(gradient, group=parallel_state.get_pipeline_model_parallel_group())
    size, group = parallel_state.get_context_parallel_world_size(), parallel_state.get_context_parallel_group()
    whole = gradient.new_zeros(frames, *gradient.shape[1:])
    whole[slice(*frame_share(frames, size, parallel_state.get_context_parallel_rank()))] = gradient
    dist.all_reduce(whole, group=group)
    return whole


def _logits(chunk: Any, given: PackedRows, share: PackedRows, places: Tensor | None, states: Tensor | None) -> Tensor:
    """Logits of the rows as they were given, on every rank; refuses more frames than this rank's share."""
    with torch.no_grad():
        logits: Tensor = chunk(dataclasses.replace(share, targets=None, cache={}), states)
        if states is not None:
            try:
                chunk(share, torch.cat([states, states[:1], states.new_zeros(1, *states.shape[1:])]))
            except InputError as error:
                assert f"the micro-batch has {given.num_frames} frames" in str(error)
            else:
                raise AssertionError("frames of other ranks were taken")
    return logits if places is None else logits[places]


Result = tuple[list[float], list[Tensor], dict[str, Tensor] | None, Tensor | None]


def run_layout(sizes: dict[str, Any], option: str = "") -> Result:
    """Losses of the micro-batches, gradients of their frame states, gradients by published name (rank 0), logits of the
    micro-batches (without pipeline stages)."""
    config = small_config(no_visible_rows="attend_all" if option == "attend_all" else "skip")
    weights = lively_weights(config, 1)
    start_layout(ParallelConfig(**sizes), torch.device("cpu"), seed=1)
    recompute = "full" if option == "recompute" else "none"
    chunks = build_decoder_chunks(config, make_transformer_config(config, **sizes, recompute=recompute))
    vision = VisionEncoder(config)
    load_hf_weights(chunks, vision, weights)
    back = gather_hf_weights(chunks, vision)
    if dist.get_rank() == 0:
        assert back is not None and list(back) == list(weights)
        assert all(torch.equal(back[name], weights[name]) for name in weights), "the round trip is not exact"
    else:
        assert back is None
    if option == "frozen":
        for chunk in chunks:
            chunk.requires_grad_(False)
    context, place = parallel_state.get_context_parallel_world_size(), parallel_state.get_context_parallel_rank()
    given = [packed_rows(config, samples, i) for i, samples in enumerate(SAMPLES)]
    given.append(given[0])  # four: a multiple of the stages
    multiple = sizes.get("tensor", 1) if sizes.get("sequence_parallel") else 1
    shares = share_rows(given, context, place, multiple)
    rows = [share.rows for share in shares]
    leaves = [
        random_states(config, r.num_frames, i)[slice(*frame_share(r.num_frames, context, place))].clone().requires_grad_()
        if r.num_frames
        else None
        for i, r in enumerate(rows)
    ]

    def step(iterator: Iterator[int], chunk: Any) -> tuple[Tensor, Callable[[Tensor], Any]]:
        index = next(iterator)

        def loss(losses: Tensor) -> Any:
            return losses.sum(), torch.tensor(1), losses.detach().sum()

        return chunk(rows[index], leaves[index]), loss

    iterators = [iter(range(len(rows))) for _ in chunks]
    for chunk in chunks:
        chunk.config.finalize_model_grads_func = None
    found = get_forward_backward_func()(
        forward_step_func=step, data_iterator=iterators if len(chunks) > 1 else iterators[0],
        model=chunks if len(chunks) > 1 else chunks[0], num_microbatches=len(rows), seq_length=rows[0].num_rows,
        micro_batch_size=1, forward_only=False,
    )  # fmt: skip
    losses = [[float(x) for x in found]]
    dist.broadcast_object_list(
        losses, group=parallel_state.get_pipeline_model_parallel_group(), group_src=sizes.get("pipeline", 1) - 1
    )
    summed = torch.tensor(losses[0], dtype=torch.float64)
    dist.all_reduce(summed, group=parallel_state.get_context_parallel_group())
    _sum_partial_gradients(chunks)
    gradients = gather_hf_weights(chunks, vision=None, read=_gradient)
    states = [_whole_gradient(leaf, r.num_frames) for leaf, r in zip(leaves, rows, strict=True) if leaf is not None]
    logits = None
    if "pipeline" not in sizes:
        parts = [
            _logits(chunks[0], g, s.rows, s.places, leaf) for g, s, leaf in zip(given[:3], shares[:3], leaves[:3], strict=True)
        ]
        logits = torch.cat(parts)
    stop_layout()
    return summed.tolist(), states, gradients, logits


def _largest_difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> tuple[float, str]:
    """Relative to the norm of each tensor; the gates, one number each that may nearly cancel, as one tensor together."""
    gates = [name for name in theirs if name.endswith("_gate")]

    def joined(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        rest = {name: tensor for name, tensor in tensors.items() if name not in gates}
        return rest | {"gates": torch.cat([tensors[name] for name in gates])}

    pairs = zip(joined(ours).values(), joined(theirs).items(), strict=True)
    return max((float((a - b).norm() / b.norm()), name) for a, (name, b) in pairs)


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    start_world(torch.device("cpu"))
    reference: dict[str, Result] = {}
    for name in names:
        layout, _, option = name.partition(":")
        key = option if option == "attend_all" else ""
        if key not in reference:
            reference[key] = run_layout(LAYOUTS["one"], key)
        expected_losses, expected_states, expected_gradients, expected_logits = reference[key]
        losses, states, gradients, logits = run_layout(LAYOUTS[layout], option)
        worst = max(abs(a - b) / b for a, b in zip(losses, expected_losses, strict=True))
        if logits is not None and expected_logits is not None:
            assert logits.shape == expected_logits.shape
            assert (logits - expected_logits).abs().max() < 1e-5 * expected_logits.abs().max(), name
        worst_state = max(float((a - b).norm() / b.norm()) for a, b in zip(states, expected_states, strict=True))
        worst_gradient, tensor = 0.0, ""
        if gradients is not None and expected_gradients is not None and option != "frozen":
            assert gradients.keys() == expected_gradients.keys()
            worst_gradient, tensor = _largest_difference(gradients, expected_gradients)
        print(
            f"{name} rank {dist.get_rank()} loss {worst:.1e} frames {worst_state:.1e} gradients {worst_gradient:.1e} {tensor}",
            flush=True,
        )
        assert worst < 1e-6 and worst_state < 1e-5 and worst_gradient < 1e-5, name
    stop_world()


if __name__ == "__main__":
    main(sys.argv[1:])
