"""Run by torchrun on two ranks: Transformer Engine's modules against torch's under tensor, sequence and context parallelism.

Prints a line for each layout with the largest differences; the test reads them.
"""

from __future__ import annotations

from typing import Any

import torch

from moss_train import platform

platform.install()

from megatron.core import parallel_state  # noqa: E402

from model.context_rows import share_rows  # noqa: E402
from model.conversion import gather_hf_weights, load_hf_weights  # noqa: E402
from model.rows import frame_share  # noqa: E402
from model.text.provider import transformer_engine_provider  # noqa: E402
from model.video_mllama import build_decoder_chunks, make_transformer_config  # noqa: E402
from moss_train.config.schema import ParallelConfig  # noqa: E402
from moss_train.parallel.layout import start_layout, stop_layout  # noqa: E402
from moss_train.parallel.world import start_world, stop_world  # noqa: E402
from tests.model.layouts_ranks import LAYOUTS, _gradient, _sum_partial_gradients  # noqa: E402
from tests.model.small import lively_weights, packed_rows, random_states, small_config  # noqa: E402
from tests.model.text.engine_stand_in import stand_in  # noqa: E402


def _pass(chunk: Any, weights: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor] | None]:
    config = chunk.model_config
    load_hf_weights([chunk], None, weights)
    size, rank = parallel_state.get_context_parallel_world_size(), parallel_state.get_context_parallel_rank()
    (share,) = share_rows([packed_rows(config, [(21, [0, 5]), (11, [1])], 3)], size, rank)
    states = random_states(config, 3, 1)[slice(*frame_share(3, size, rank))].requires_grad_()
    losses = chunk(share.rows, states)
    losses.sum().backward()
    _sum_partial_gradients([chunk])
    assert states.grad is not None
    return losses.detach(), states.grad, gather_hf_weights([chunk], None, read=_gradient)


def _shards(chunk: Any) -> dict[str, tuple[Any, ...]]:
    """Key of every saved tensor: its global shape and this rank's place in it."""
    found = {}
    for value in chunk.sharded_state_dict().values():
        built = value.build() if hasattr(value, "build") else value
        for shard in built if isinstance(built, list) else built.values() if isinstance(built, dict) else [built]:
            if hasattr(shard, "global_offset") and hasattr(shard, "data"):
                found[f"{shard.key}{getattr(shard, 'global_offset', ())}"] = (
                    shard.global_shape,
                    getattr(shard, "replica_id", None),
                )
    return found


def main() -> None:
    start_world(torch.device("cpu"))
    config = small_config()
    weights = {n: t for n, t in lively_weights(config, 0).items() if n.startswith("language_model.")}
    with stand_in():
        for name in ("tp2", "tp2_sp", "cp2"):
            start_layout(ParallelConfig(**LAYOUTS[name]), torch.device("cpu"), seed=1)
            transformer = make_transformer_config(config, **LAYOUTS[name])
            chunks = [build_decoder_chunks(config, transformer, p)[0] for p in (None, transformer_engine_provider())]
            same = _shards(chunks[0]) == _shards(chunks[1])
            (plain, plain_states, plain_all), (engine, engine_states, engine_all) = (_pass(chunk, weights) for chunk in chunks)
            largest = [float((plain - engine).abs().max()), float((plain_states - engine_states).abs().max())]
            if plain_all is not None and engine_all is not None:
                assert plain_all.keys() == engine_all.keys()
                largest.append(
                    max(float((plain_all[n] - engine_all[n]).abs().max() / plain_all[n].abs().max()) for n in plain_all)
                )
                print("RESULT", name, *largest, same, flush=True)
            stop_layout()
    stop_world()


if __name__ == "__main__":
    main()
