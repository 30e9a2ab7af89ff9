"""What a build would make and cost, before it is begun."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from data_pipeline.generator.build.config import BuildConfig
from data_pipeline.world.seeds import SPLITS


def estimate(config: BuildConfig) -> dict[str, Any]:
    """Rows and, where a model writes, calls, tokens, dollars and hours; names and values to print.

    Raises:
        InputError: the source cannot be read.
    """
    if config.source.kind == "world":
        rows = {split: getattr(config.rows, split) for split in SPLITS}
        frames = math.ceil(config.world.seconds * config.fps)
        return {
            "rows": ", ".join(f"{split} {count}" for split, count in rows.items()),
            "frames": sum(rows.values()) * frames,
            "parts": sum(math.ceil(count / config.rows_per_part) for count in rows.values()),
            "model calls": 0,
        }
    from data_pipeline.generator.build.plan_calls import planned_calls

    return planned_calls(config, Path(config.source.path))
