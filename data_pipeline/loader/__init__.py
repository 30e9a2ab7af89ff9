"""Reading shards into packed micro-batches, on Megatron-Energon.

    loader = build_loader(data, stage, model_config, tokenizer, rank=dp_rank, world_size=dp_size,
                          data_parallel_group=group, split="train", ledger=run_dir / "quarantine.jsonl")
    micro_batch = next(loader)          # a PackedMicroBatch; training never ends
    loader.load_state_dict(state)       # before the first `next`; `state_dict()` at any time
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
