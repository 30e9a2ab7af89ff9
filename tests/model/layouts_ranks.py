"""Run by torchrun on 2 ranks: forward, gradients and weights of every layout against one rank."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from moss_train import platform

platform.install()

from megatron.core import parallel_state  # noqa: E402
from megatron.core.pipeline_parallel import get_forward_backward_func  # noqa: E402

from model.conversion import gather_hf_weights, load_hf_weights  # noqa: E402
from model.video_mllama import build_decoder_chunks, make_transformer_config  # noqa: E402
from model.vision.encoder import VisionEncoder  # noqa: E402
from moss_train.config.schema import ParallelConfig  # noqa: E402
from moss_train.parallel.layout import start_layout, stop_layout  # noqa: E402
from moss_train.parallel.world import start_world, stop_world  # noqa: E402
from tests.model.small import lively_weights, packed_rows, random_states, small_config  # noqa: E402

LAYOUTS = {
    "one": {},
    "tp2": {"tensor": 2},
    "tp2_sp": {"tensor": 2, "sequence_parallel": True},
    "pp2": {"pipeline": 2},
    "pp2_vpp2": {"pipeline": 2, "virtual_pipeline": 2},
}
SAMPLES: list[list[tuple[int, list[int]]]] = [[(9, [2, 5, 6]), (6, []), (7, [1]), (8, [0, 7])], [(14, []), (16, [3])], [(30, [])]]
"""Three micro-batches of 30 rows; the last has no frames."""


def _gradient(parameter: torch.nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _sum_partial_gradients(chunks: list[Any]) -> None:
    """What megatron-core's finalize_model_grads does for parameters that see a share of heads or rows."""
    for chunk in chunks:
        for name, parameter in chunk.named_parameters():
            partial = "q_layernorm" in name or "k_layernorm" in name
            if partial or (chunk.config.sequence_parallel and getattr(parameter, "sequence_parallel", False)):
                parameter.grad = _gradient(parameter)
                dist.all_reduce(parameter.grad, group=parallel_state.get_tensor_model_parallel_group())


def run_layout(sizes: dict[str, Any]) -> tuple[list[float], list[Tensor], dict[str, Tensor] | None]:
    """Losses of the micro-batches, gradients of their frame states, gradients by published name (rank 0)."""
    config = small_config()
    weights = lively_weights(config, 1)
    start_layout(ParallelConfig(**sizes), torch.device("cpu"), seed=1)
    chunks = build_decoder_chunks(config, make_transformer_config(config, **sizes))
    vision = VisionEncoder(config)
    load_hf_weights(chunks, vision, weights)
    back = gather_hf_weights(chunks, vision)
    if dist.get_rank() == 0:
        assert back is not None and list(back) == list(weights)
        assert all(torch.equal(back[name], weights[name]) for name in weights), "the round trip is not exact"
    else:
        assert back is None
    rows = [packed_rows(config, samples, i) for i, samples in enumerate(SAMPLES)] * 2  # six: a multiple of the stages
    leaves = [random_states(config, r.num_frames, i).requires_grad_() if r.num_frames else None for i, r in enumerate(rows)]

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
    dist.broadcast_object_list(losses, src=dist.get_world_size() - 1)
    _sum_partial_gradients(chunks)
    gradients = gather_hf_weights(chunks, vision=None, read=_gradient)
    group = parallel_state.get_pipeline_model_parallel_group()
    states = []
    for leaf in leaves:
        if leaf is not None:
            gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
            dist.all_reduce(gradient, group=group)
            states.append(gradient)
    stop_layout()
    return losses[0], states, gradients


def main() -> None:
    torch.set_num_threads(1)
    start_world(torch.device("cpu"))
    expected_losses, expected_states, expected_gradients = run_layout(LAYOUTS["one"])
    for name, sizes in LAYOUTS.items():
        losses, states, gradients = run_layout(sizes)
        worst = max(abs(a - b) / b for a, b in zip(losses, expected_losses, strict=True))
        worst_state = max(float((a - b).norm() / b.norm()) for a, b in zip(states, expected_states, strict=True))
        worst_gradient = 0.0
        if gradients is not None and expected_gradients is not None:
            assert gradients.keys() == expected_gradients.keys()
            worst_gradient = max(float((gradients[n] - g).norm() / g.norm()) for n, g in expected_gradients.items())
        print(
            f"{name} rank {dist.get_rank()} loss {worst:.1e} frames {worst_state:.1e} gradients {worst_gradient:.1e}", flush=True
        )
        assert worst < 1e-6 and worst_state < 1e-5 and worst_gradient < 1e-5, name
    stop_world()


if __name__ == "__main__":
    main()
