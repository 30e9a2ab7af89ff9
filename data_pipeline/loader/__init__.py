"""Reading shards into packed micro-batches, on Megatron-Energon.

    loader = build_loader(data, stage, model_config, tokenizer, rank=dp_rank, world_size=dp_size,
                          split="train", ledger=run_dir / "quarantine.jsonl")
    loader.load_state_dict(merge_states(states))   # of all replicas that saved, however many; before the first `next`
    micro_batch = next(loader)                     # a PackedMicroBatch; endless unless every dataset has `repeats`
    state = loader.state_dict()                    # this replica's part, between steps
    loader.close()

`data` and `stage` are any objects with the fields of the protocols in `config.py` (the run's configuration has
them). `rank` and `world_size` are those of the data-parallel group: ranks that share them read the same. With
`split="validation"` the loader is finite, in fixed order, and gives every rank equally many micro-batches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data_pipeline.loader.loader import Loader, build_loader

__all__ = ["Loader", "build_loader"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from data_pipeline.loader import loader

        return getattr(loader, name)
    raise AttributeError(name)
