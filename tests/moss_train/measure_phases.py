"""Seconds of a step's parts by events, by a clock that waits for the GPU, and by one that does not; and what events cost.

Usage, on a GPU: python -m tests.moss_train.measure_phases OUT.json
"""

# ruff: noqa: E402 - the platform comes before everything of megatron-core
from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from moss_train import platform

platform.install()

import torch

from data_pipeline.packing.batch import PackedMicroBatch
from moss_train.config.compose import compose
from moss_train.phases import Phases
from moss_train.planning import measure

OVERRIDES = (
    "stage=pt2 model.text.num_hidden_layers=3 model.text.cross_attention_layers=[1] model.vision.num_hidden_layers=8 "
    "model.vision.num_global_layers=2 model.vision.intermediate_layers_indices=[1,2,3,5,7] modules=transformer_engine "
    "vision.keep_activations_gib=5"
)
PACKS = {"large": [(2048, 8), (1024, 4), (1024, 4)], "small": [(256, 1)]}
"""(rows, frames) of the samples of each of the two micro-batches."""


class Synchronised(Phases):
    """Waits for the device at the begin and end of every part."""

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        torch.cuda.synchronize()
        with super().__call__(name):
            yield
            torch.cuda.synchronize()


class Off(Phases):
    """Counts nothing."""

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        yield


def main(out: Path) -> None:
    """Print and write the numbers."""
    config = compose(OVERRIDES.split())
    result: dict[str, Any] = {"overrides": OVERRIDES, "device": torch.cuda.get_device_name(), "torch": torch.__version__}
    with measure.world(config) as layout:
        models, optimization, step = measure._subject(config, layout)
        optimization.set_learning_rates(1e-6, 1e-6)
        batches = {
            name: [measure.synthetic_pack(models.config, index, samples) for index in range(2)] for name, samples in PACKS.items()
        }

        def run(phases: Phases, count: int, packs: Sequence[PackedMicroBatch]) -> tuple[float, list[dict[str, float]]]:
            """Seconds of a step, and the parts of each."""
            step.phases = phases
            torch.cuda.synchronize()
            begin, taken = time.perf_counter(), []
            for _ in range(count):
                step.accumulate(packs)
                with phases("optimizer"):
                    optimization.update()
                taken.append(phases.take())
            torch.cuda.synchronize()
            return (time.perf_counter() - begin) / count, taken

        run(Off(), 4, batches["large"])
        for label, phases in (("synchronised", Synchronised()), ("events", Phases(layout.device)), ("host", Phases())):
            seconds, taken = run(phases, 9, batches["large"])
            parts = taken[1:]  # the first lacks the optimizer of the step before
            names = sorted({name for row in parts for name in row})
            result[label] = {"step": seconds, "phases": {n: sum(row.get(n, 0.0) for row in parts) / len(parts) for n in names}}
        for name, count in (("large", 6), ("small", 12)):
            run(Off(), 2, batches[name])
            events = Phases(layout.device)
            pairs = [(run(Off(), count, batches[name])[0], run(events, count, batches[name])[0]) for _ in range(5)]
            result[f"overhead_{name}"] = {"off": [off for off, _ in pairs], "on": [on for _, on in pairs]}
    print(json.dumps(result, indent=1))
    out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
