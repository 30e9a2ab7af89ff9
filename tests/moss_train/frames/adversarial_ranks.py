"""Run by torchrun: one step on global batches made to break the exchange, compared with one rank's.

Usage: adversarial_ranks REFERENCE_FILE LAYOUT... with a layout as `dp4`, `tp2`, `pp2`, `cp2`. Where a trial takes more than
60 s, because a rank waits for the others, all of them end.
"""

# ruff: noqa: E402 - the platform comes before everything of megatron-core
from __future__ import annotations

import faulthandler
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from moss_train import platform

platform.install()

import torch
import torch.distributed as dist

from model.conversion import gather_hf_weights
from model.initialise import initialise_weights, set_cross_gates
from moss_train.config.schema import OptimizerConfig, ParallelConfig, PrecisionConfig, StageConfig
from moss_train.engines.models import Models, build_models, freeze
from moss_train.engines.optimization import Optimization
from moss_train.feed.wire import without_pixels
from moss_train.frames import on_host
from moss_train.frames.settings import Choice, EncodeSettings
from moss_train.parallel.layout import ParallelLayout, start_layout, stop_layout
from moss_train.parallel.world import start_world, stop_world
from moss_train.platform.device import resolve_device
from moss_train.step import DecoupledStep, StepSettings
from tests.moss_train.packs import DATASETS, SILENCE, make_pack, tiny_config

WATCHDOG = 60  # seconds
EVERYTHING = "dp4"
"""The layout in which every trial is made."""
on_host.SMALLEST = 1  # the states of a tiny tower move too
TEXT = [(14, 0)]
CASES: dict[str, list[list[tuple[int, int]]]] = {
    "one rank has all": [[(9, 7)], [(5, 6), (4, 0)], *[TEXT] * 6],
    "last rank has all": [*[TEXT] * 7, [(6, 9)]],
    "none": [TEXT] * 8,
    "one frame": [*[TEXT] * 5, [(8, 1)], TEXT, TEXT],
    "images, one rank text": [[(7, 1), (6, 1)]] * 4 + [[(7, 1)]] * 2 + [TEXT] * 2,
    "uneven": [[(5, 13)], TEXT, [(9, 1)], [(3, 2), (6, 0)], [(4, 5)], [(8, 1)], [(6, 12)], [(5, 1), (5, 1)]],
}
SETTINGS = {
    "whole": EncodeSettings(chunk=3),
    "windows": EncodeSettings(keep_frames=2, chunk=2, again_chunk=2, window_bytes=1),
    "attention": EncodeSettings(keep_frames=3, keep_mode="attention", chunk=2, again_chunk=2, window_bytes=50_000),
    "host": EncodeSettings(
        keep_frames=1, keep_mode="all", chunk=2, again_chunk=2, window_bytes=50_000, host_bytes=1 << 24, host_mode="input",
        host_choices=(Choice("input", 3, 0.7),),
    ),
}  # fmt: skip
PRESETS = ("all", "text_only")
ADAM = OptimizerConfig(name="adam", distributed=True, clip_grad=0.5)
SGD = OptimizerConfig(name="sgd", distributed=False, clip_grad=0.5)


def parse_layout(text: str) -> ParallelConfig:
    """`tp2` -> tensor 2; data parallel takes the rest of the world."""
    names = {"tp": "tensor", "pp": "pipeline", "cp": "context"}
    parts = [(part[:2], int(part[2:])) for part in text.split(".") if part[:2] in names]
    return ParallelConfig(**{names[short]: size for short, size in parts})


def build(layout: ParallelLayout, preset: str, optimizer: OptimizerConfig) -> tuple[Models, Optimization]:
    """Modules with the same weights in every layout."""
    config = tiny_config()
    models = build_models(config, layout)
    initialise_weights(models.chunks, models.vision, config, seed=3)
    set_cross_gates(models.chunks, 0.7)
    freeze(models, StageConfig(name="test", trainable=preset))
    precision = PrecisionConfig(dtype="fp32")
    return models, Optimization(models.chunks, models.unit, models.transformer_config, layout, optimizer, precision)


def count_exchanges() -> list[int]:
    """A list that grows by the number of rows of each all-to-all that this rank takes part in."""
    calls: list[int] = []
    original = dist.all_to_all_single

    def counted(output: torch.Tensor, *args: Any, **options: Any) -> Any:
        calls.append(int(output.shape[0]))
        return original(output, *args, **options)

    dist.all_to_all_single = counted
    return calls


def run_case(
    models: Models, optimization: Optimization, layout: ParallelLayout, case: str, kind: str, sharded: bool
) -> dict[str, Any]:
    """Loss, norm and gradients of one step; weights stay as they are."""
    step = DecoupledStep(models, optimization, layout, StepSettings(1.0, SILENCE, SETTINGS[kind], DATASETS))
    batches = [make_pack(models.config, i, samples, 24) for i, samples in enumerate(CASES[case])]
    own = len(batches) // layout.data_size
    batches = batches[layout.place.data * own : (layout.place.data + 1) * own]
    if not layout.writes_for_replica:  # pixels are with the rank that reads alone
        batches = [without_pixels(batch) for batch in batches]
    statistics = step.accumulate(batches)

    def gradient(parameter: torch.nn.Parameter) -> torch.Tensor:
        found: torch.Tensor | None = getattr(parameter, "main_grad", None)
        return torch.zeros_like(parameter, dtype=torch.float32) if found is None else found.clone()

    whole = {} if sharded else gather_hf_weights(models.chunks, models.vision, gradient)
    optimization.set_learning_rates(0.0, 0.0)
    norm = optimization.update()
    return {
        "loss": statistics.loss,
        "norm": norm,
        "gradients": whole or {},
        "on_host": step.frames.kept_on_host,
        "encoded": statistics.encoded_by_rank,
        "windows": step.frames.windows,
    }


def difference(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """Largest difference of a tensor's gradient, relative to the norm of its half: vision encoder or decoder."""
    worst = 0.0
    for vision in (True, False):
        half = [name for name in theirs if name.startswith(("vision_model", "multi_modal_projector")) == vision]
        norm = sum(float(theirs[name].double().square().sum()) for name in half) ** 0.5
        most = max((float((ours[name].double() - theirs[name].double()).norm()) for name in half), default=0.0)
        worst = max(worst, most / norm if norm else most)
    return worst


def trials(layout: str = EVERYTHING) -> list[tuple[str, OptimizerConfig, str, str]]:
    """Preset, optimizer, setting and case: each case with the next setting, some with a frozen tower or sharded states.

    Elsewhere than in the layout with most ranks that read, only what a rank without pixels or with a part of a sequence could
    do otherwise: nothing or one frame in all, one reader with everything, and uneven ones that keep a part.
    """
    kinds = ("whole", "windows", "attention")
    mixed = [("all", SGD, kinds[i % len(kinds)], case) for i, case in enumerate(CASES)]
    host = ("all", SGD, "host", "uneven")
    if layout != EVERYTHING:
        return [trial for trial in mixed if trial[3] in ("last rank has all", "none", "one frame", "uneven")] + [host]
    return [
        *mixed,
        ("all", SGD, "windows", "uneven"),
        ("text_only", SGD, "windows", "uneven"),
        ("all", ADAM, "windows", "uneven"),
        host,
        ("all", SGD, "host", "last rank has all"),
    ]


def compare(got: dict[str, Any], want: dict[str, Any]) -> dict[str, Any]:
    """Differences from the one rank's result, relative; sharded gradients are not gathered."""
    return {
        "loss": abs(got["loss"] - want["loss"]) / want["loss"],
        "norm": abs(got["norm"] - want["norm"]) / want["norm"],
        "gradients": difference(got["gradients"], want["gradients"]),
        "encoded": got["encoded"],
        "on_host": got["on_host"],
        "windows": got["windows"],
        "exchanges": got["exchanges"],
    }


def run_trials(layout: ParallelLayout, calls: list[int], name: str = EVERYTHING) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and result of each trial in a layout.

    Args:
        calls: grows with each all-to-all.
        name: of the layout.
    """
    built: dict[tuple[str, str], tuple[Models, Optimization]] = {}
    for preset, optimizer, kind, case in trials(name):
        if (preset, optimizer.name) not in built:
            built[preset, optimizer.name] = build(layout, preset, optimizer)
        calls.clear()
        result = run_case(*built[preset, optimizer.name], layout, case, kind, optimizer.distributed)
        everyone: list[Any] = [None] * layout.world_size
        dist.all_gather_object(everyone, len(calls))
        yield f"{preset}/{optimizer.name}/{kind}/{case}", result | {"exchanges": everyone}


def one_rank(reference: Path) -> None:
    """Save the results of this process alone, to compare others with."""
    device = resolve_device("auto")
    start_world(device)
    layout = start_layout(ParallelConfig(), device, seed=1)
    torch.save(dict(run_trials(layout, [])), reference)
    stop_layout()


def main(reference: str, names: list[str]) -> None:
    """Every layout and trial; the report is the last line of rank 0."""
    torch.set_num_threads(1)
    device = resolve_device("auto")
    faulthandler.dump_traceback_later(WATCHDOG, exit=True)
    start_world(device)
    expected = torch.load(reference, weights_only=False)
    calls = count_exchanges()
    found: dict[str, Any] = {}
    for name in names:
        layout = start_layout(parse_layout(name), device, seed=1)
        for key, result in run_trials(layout, calls, name):
            faulthandler.dump_traceback_later(WATCHDOG, exit=True)  # counts from anew
            if dist.get_rank() == 0:
                found[f"{name}/{key}"] = compare(result, expected[key])
        stop_layout()
    if dist.get_rank() == 0:
        print("REPORT " + json.dumps(found), flush=True)
    dist.barrier()
    stop_world()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
