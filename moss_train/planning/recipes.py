"""The recipes of `conf/experiment` as tables, each row from a plan: `python -m moss_train.planning.recipes` prints them.

docs/recipes.md holds what it prints; a test compares the two.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

from moss_train.config.compose import choices, compose
from moss_train.config.schema import RunConfig
from moss_train.planning.data_items import SourceVideo
from moss_train.planning.expected import ExpectedPack, expected_pack, workload_stream
from moss_train.planning.hardware import Cluster
from moss_train.planning.layouts import short
from moss_train.planning.run_plan import RunPlan, gb, plan_run

SAMPLES = {"pt1": 15_100_000, "pt2": 1_800_000, "sft_offline": 8_600_000, "sft_realtime": 836_000}
"""Published for the stages; each was seen once."""
SOURCE = "1920x1080@30"
"""Videos that the loader is planned for: as they are published, not prepared."""
PRICE = 2.5
"""US dollars for a GPU-hour."""
HEADER = (
    "| `experiment=` | layout | GPU | GB of a GPU | s a step | frames/s a GPU | cores a GPU | days | USD |",
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
)


def names() -> list[str]:
    """All recipes: by stage, model, number of GPUs."""
    return sorted(choices("experiment"), key=_order)


def _order(name: str) -> tuple[int, str, int, str]:
    stage, model, gpus, rest = parts(name)
    return list(SAMPLES).index(stage), model, gpus, rest


def parts(name: str) -> tuple[str, str, int, str]:
    """Stage, model, number of GPUs, and what else a recipe's name says.

    Raises:
        ValueError: another kind of name.
    """
    match = re.fullmatch(rf"({'|'.join(SAMPLES)})_(\d+b)_(\d+)((?:_lora|_compact)?(?:_h200)?)", name)
    if match is None:
        raise ValueError(f"{name} is no name of a recipe; use STAGE_MODEL_GPUS, then _lora or _compact and _h200 if so")
    return match[1], match[2], int(match[3]), match[4]


@functools.cache
def recipe(name: str) -> RunConfig:
    """The composed recipe; shared, not to be changed."""
    return compose([f"experiment={name}"])


def plan(config: RunConfig, *, nodes: int | None = None, gpu: str | None = None) -> RunPlan:
    """Plan a recipe with the published workload.

    Args:
        nodes: other than `launcher.nodes`.
        gpu: other than `launcher.gpu`.

    Raises:
        InputError: what a run in this layout would refuse.
    """
    pack = average_pack(config)
    ranks = (nodes or config.launcher.nodes) * config.launcher.nproc_per_node
    stream = workload_stream(config, SourceVideo.parse(SOURCE))
    steps = pack.steps(SAMPLES[config.stage.name], config.train.global_batch_size)
    return plan_run(config, ranks, Cluster.of(gpu or config.launcher.gpu, price=PRICE), pack, steps=steps, stream=stream)


def average_pack(config: RunConfig) -> ExpectedPack:
    """Of the published workload."""
    key = (repr(config.stage), config.data.packing_buffer, config.data.samples_per_pack)
    if key not in _PACKS:
        _PACKS[key] = expected_pack(config, workload_stream(config, SourceVideo.parse(SOURCE)), "the published workload")
    return _PACKS[key]


_PACKS: dict[tuple[str, int, int | None], ExpectedPack] = {}


def row(name: str) -> str:
    """One line of a table."""
    values = plan(recipe(name)).to_dict()
    worst = max(stage["total"] for stage in values["memory"])
    loader = values["loader"]
    days, cost = values["days"], values["cost"]
    return (
        f"| `{name}` | {short(recipe(name).parallel)} | {values['gpu']} | {gb(worst)} | {values['seconds']['total']:.2f} | "
        f"{loader['frames']:.1f} | {loader['cores']:.1f} | {days:.2f} | {cost:,.0f} |"
    )


def table(stage: str) -> list[str]:
    """The lines of a stage's table."""
    return [*HEADER, *(row(name) for name in names() if parts(name)[0] == stage)]


def tables() -> Iterator[str]:
    """The lines of all tables, each under its stage and the steps that its published samples take."""
    for stage, samples in SAMPLES.items():
        taken = {}  # packs of a step -> steps
        for name in (name for name in names() if parts(name)[0] == stage):
            config = recipe(name)
            taken[config.train.global_batch_size] = average_pack(config).steps(samples, config.train.global_batch_size)
        yield f"### {stage}"
        yield ""
        yield f"{samples:,} samples: " + ", ".join(f"`train.steps={steps}` of {packs} packs" for packs, steps in taken.items())
        yield ""
        yield from table(stage)
        yield ""


if __name__ == "__main__":
    from moss_train import platform

    platform.install()
    print("\n".join(tables()).rstrip())
