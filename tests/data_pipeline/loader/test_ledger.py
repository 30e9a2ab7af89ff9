"""The quarantine ledger by itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from megatron.energon.errors import FatalSampleError

from data_pipeline.loader.ledger import Ledger


def test_a_sample_that_several_ranks_entered_counts_once(tmp_path: Path) -> None:
    """Tensor-parallel ranks read the same data, and may meet a bad sample before they see each other's line."""
    path = tmp_path / "quarantine.jsonl"
    line = json.dumps({"kind": "bad", "dataset": "d", "shard": "s", "key": "k0", "reason": "r"}) + "\n"
    path.write_text(line * 8)
    ledger = Ledger(path, budget=2)
    ledger.add("d", "s", "k1", "r")
    with pytest.raises(FatalSampleError, match="3 samples could not be read"):
        ledger.add("d", "s", "k2", "r")
