"""Measures the cases of docs/benchmarks/plan-memory.json again, on GPUs: what `moss plan measure` measures, all in one process.

    python -m tests.moss_train.planning.measure_cases plan-memory.json
    torchrun --nproc-per-node 2 -m tests.moss_train.planning.measure_cases plan-memory.json

The first runs those of one rank, the second those of two; each writes its cases over those of the same names and leaves the
others as they were. A case that does not fit says so and stays as it was.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from moss_train import platform

FIXTURE = Path(__file__).resolve().parents[3] / "docs" / "benchmarks" / "plan-memory.json"
SIX = [
    "stage=pt2", "model.text.num_hidden_layers=6", "model.text.cross_attention_layers=[3]", "model.vision.num_hidden_layers=8",
    "model.vision.num_global_layers=2", "model.vision.intermediate_layers_indices=[1,2,3,5,7]", "modules=transformer_engine",
]  # fmt: skip
TOWER = [
    "stage=pt2", "model.text.num_hidden_layers=2", "model.text.cross_attention_layers=[1]", "modules=transformer_engine",
    "vision.keep_activations_gib=10",
]  # fmt: skip
ROWS, FRAMES = [[[2048, 8], [1024, 4], [1024, 4]]], [[[4096, 64]]]
NEW: list[tuple[str, list[str], list[list[list[int]]]]] = [
    ("4,096 rows, 16 frames, layers of the tower by operators", [*SIX, "vision.layers=torch", "vision.keep_mode=all"], ROWS),
    ("4,096 rows, 16 frames, no logits kept", [*SIX, "train.head_logits_gib=0"], ROWS),
    ("4,096 rows, 16 frames, fp8, tower too", [*SIX, "precision=fp8", "precision.fp8_vision=true"], ROWS),
    ("4,096 rows, 16 frames, 10 bytes a parameter", [*SIX, "optimizer=adamw_lean", "precision.grad_reduce_fp32=false"], ROWS),
    *(
        (f"whole tower, 64 frames, 10 GiB of level {level}", [*TOWER, f"vision.keep_mode={level}"], FRAMES)
        for level in ("input", "middle", "most", "all")
    ),
]  # fmt: skip
"""Of one rank, measured beside those that the file has."""


def main(target: Path) -> int:
    """Measure and write."""
    platform.install()
    import torch
    import torch.distributed as dist

    from moss_train.config.compose import compose
    from moss_train.parallel.layout import start_layout, stop_layout
    from moss_train.parallel.world import start_world, stop_world
    from moss_train.planning.measure import measure

    ranks, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    content = json.loads((target if target.exists() else FIXTURE).read_text(encoding="utf-8"))
    known = {case["name"] for case in content["cases"]}
    new = [case for case in NEW if case[0] not in known]
    content["cases"] += [{"name": name, "overrides": words, "samples": samples, "ranks": [None]} for name, words, samples in new]
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    start_world(device)
    for case in content["cases"]:
        if len(case["ranks"]) != ranks:
            continue
        config, begun = compose(case["overrides"]), time.perf_counter()
        layout = start_layout(config.parallel, device, config.train.seed)
        everyone: list[Any] = [None] * ranks
        try:
            found = measure(config, case["samples"], replace(layout, sizes=config.parallel))
            dist.all_gather_object(everyone, _plain(vars(found)))
        except torch.cuda.OutOfMemoryError as error:
            if ranks > 1:
                raise
            print(f"{case['name']}: {str(error).splitlines()[0]}", flush=True)
        stop_layout()
        gc.collect()
        torch.cuda.empty_cache()
        if everyone[0] is not None:
            case["ranks"], case["date"] = everyone, time.strftime("%Y-%m-%d")
            if not rank:
                took = sum(everyone[0]["seconds"].values())
                print(f"{case['name']}: step {took:.3f} s, case {time.perf_counter() - begun:.0f} s", flush=True)
    stop_world()
    if not rank:
        content["cases"] = [case for case in content["cases"] if case["ranks"][0] is not None]
        content["date"] = time.strftime("%Y-%m-%d")
        content["hardware"] |= {"device": torch.cuda.get_device_name(device)}
        content["hardware"] |= {"memory": torch.cuda.get_device_properties(device).total_memory}
        target.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


def _plain(found: dict[str, Any]) -> dict[str, Any]:
    """As the fixture has it: seconds to a tenth of a millisecond, layers by kind."""
    layers: dict[str, list[int]] = {}
    before: int | None = None
    for name, allocated in found["kept_by_layer"]:
        if before is not None:
            layers.setdefault("cross" if "Cross" in name else "self", []).append(allocated - before)
        before = allocated
    return {
        "static": found["static"], "peaks": found["peaks"],
        "seconds": {phase: round(seconds, 4) for phase, seconds in found["seconds"].items()}, "reserved": found["reserved"],
        "beside": found["beside"], "kept_by_layer": layers,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
