"""The recipes of `conf/experiment` fit where they say, are near the fastest layout, and say what docs/recipes.md says."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path

import pytest

from model.errors import InputError
from moss_train.cli.main import main
from moss_train.config.compose import choices, compose, conf_dir, load_config, save_config
from moss_train.config.schema import RunConfig
from moss_train.launching.nodes import usable_nodes
from moss_train.planning.hardware import Cluster
from moss_train.planning.layouts import candidates, search
from moss_train.planning.recipes import average_pack, names, parts, plan, recipe, tables
from moss_train.planning.run_plan import RunPlan

REPOSITORY = Path(__file__).resolve().parents[3]
RECIPES = names()
UNKNOWN = 1.10
"""What docs/planning.md says to count on for a layout that nobody has run: memory may be so much more than planned."""
NEAR = 1.10
"""A recipe's predicted time, to the fastest layout's that leaves that much memory free."""
SEARCHED = (
    "pt1_11b_8", "pt1_11b_512", "pt1_90b_64", "pt2_11b_8", "pt2_90b_8_lora", "pt2_90b_64", "sft_realtime_11b_64",
    "sft_realtime_90b_64_h200",
)  # fmt: skip
"""Those whose layout is held against all others in every run of the tests; the others too with MOSS_SLOW_TESTS."""
BUFFERS = 400e9
"""Bytes of undecoded samples on a node."""


def roomy(found: RunPlan) -> bool:
    """Whether it fits even if the plan is as far off as it may be."""
    return found.memory.worst.total * UNKNOWN <= found.cluster.gpu.memory


def complaints(config: RunConfig) -> list[str]:
    """What is wrong with a recipe on all its nodes and on the fewest, on its GPU and on an H200."""
    launcher, found = config.launcher, []
    for nodes in sorted({launcher.nodes, launcher.least_nodes}):
        for gpu in sorted({launcher.gpu, "H200"}):
            where = f"{nodes} nodes of {gpu}"
            try:
                predicted = plan(config, nodes=nodes, gpu=gpu)
            except InputError as error:
                found.append(f"{where}: {error}")
                continue
            found += [f"{where}: {words}" for words in _complaints(config, predicted)]
    if usable_nodes(config, launcher.least_nodes) != launcher.least_nodes:
        found.append("the fewest nodes cannot be used")
    return found


def _complaints(config: RunConfig, predicted: RunPlan) -> list[str]:
    load, gpus, step = predicted.load, config.launcher.nproc_per_node, predicted.time.total
    assert load is not None
    readers = config.data.global_data_workers / predicted.ranks
    saving = config.train.save_every * step * predicted.ranks / (config.launcher.nodes * gpus)
    checks = {
        "memory": roomy(predicted),
        "readers are not shared evenly": config.data.global_data_workers % predicted.replicas == 0,
        "fewer readers than cores owed": readers >= load.cores,
        "buffers": load.buffers * gpus <= BUFFERS,
        "a step is taken for a hang": step * 4 <= config.guard.hang_seconds,
        "checkpoints": 8 * 60 <= saving <= 40 * 60,
    }
    return [words for words, good in checks.items() if not good]


@functools.cache
def _model(name: str) -> dict[str, object]:
    return compose(["stage=pt1", f"model={name}"]).model


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_fits_and_is_what_its_name_says(name: str) -> None:
    config, (stage, model, gpus, rest) = recipe(name), parts(name)
    assert config.stage.name == stage and config.model == _model(model)
    assert config.launcher.nodes * config.launcher.nproc_per_node == gpus
    assert config.launcher.gpu == ("H200" if "_h200" in rest else "H100") and bool(config.lora.rank) == ("_lora" in rest)
    assert complaints(config) == []


def test_what_the_stage_and_its_batch_are_is_the_stage_files() -> None:
    """A recipe changes how a stage runs and never what it is; adapters have a batch and a learning rate of their own, compact
    states a batch, a quicker second moment and gradients in bf16."""
    for stage in ("pt1", "pt2", "sft_offline", "sft_realtime"):
        plain = compose([f"stage={stage}"])
        for name in (name for name in RECIPES if parts(name)[0] == stage):
            config, lora, compact = recipe(name), "_lora" in name, "_compact" in name
            assert config.train.global_batch_size == (32 if lora else 16 if compact else plain.train.global_batch_size)
            rate = 2e-4 if lora else plain.stage.learning_rate
            assert config.stage == dataclasses.replace(plain.stage, learning_rate=rate)
            assert config.train.steps == plain.train.steps and config.data.mixture == plain.data.mixture
            assert config.precision == dataclasses.replace(plain.precision, grad_reduce_fp32=not compact)
            assert config.optimizer.beta2 == (0.98 if compact else plain.optimizer.beta2)


def test_chained_recipes_have_one_model_and_tokenizer() -> None:
    for first in RECIPES:
        for second in RECIPES:
            if parts(first)[1] == parts(second)[1]:
                a, b = recipe(first), recipe(second)
                assert a.model == b.model and (a.data.root, a.data.tokenizer) == (b.data.root, b.data.tokenizer)
        assert recipe(first).train.init_from is None  # the user's, or the chain's


@pytest.mark.parametrize("name", [name if name in SEARCHED else pytest.param(name, marks=pytest.mark.slow) for name in RECIPES])
def test_no_layout_that_leaves_as_much_room_is_much_faster(name: str) -> None:
    config = recipe(name)
    assert _slowness(config) <= NEAR


def _slowness(config: RunConfig) -> float:
    """Predicted time of a step, to that of the fastest roomy layout."""
    launcher = config.launcher
    found = search(config, launcher.nodes * launcher.nproc_per_node, Cluster.of(launcher.gpu), average_pack(config))
    return plan(config).time.total / min(candidate.time.total for candidate in found.plans if roomy(candidate))


@pytest.mark.parametrize(
    "name", [name if name in SEARCHED else pytest.param(name, marks=pytest.mark.slow) for name in RECIPES if "_h200" not in name]
)
def test_h200_have_a_recipe_of_their_own_where_it_is_a_tenth_faster(name: str) -> None:
    config, twin = recipe(name), f"{name}_h200"
    here = plan(config, gpu="H200").time.total
    if twin in RECIPES:
        assert plan(recipe(twin)).time.total <= 0.9 * here
        return
    assert _slowness(dataclasses.replace(config, launcher=dataclasses.replace(config.launcher, gpu="H200"))) < 1 / 0.9


@pytest.mark.parametrize(
    ("name", "group", "field", "value", "words"),
    [
        ("pt2_11b_8", "parallel", "tensor", 3, "does not divide the 8 ranks"),
        ("pt2_11b_8", "parallel", "recompute", "none", "memory"),
        ("pt1_90b_64", "parallel", "tensor", 1, "parallel.sequence_parallel"),
        ("pt2_90b_64", "vision", "again_chunk_frames", 8, "memory"),
        ("pt2_11b_64", "launcher", "min_nodes", 3, "global_batch_size"),
        ("pt2_90b_512", "launcher", "min_nodes", 32, "memory"),
        ("pt2_11b_64", "data", "global_data_workers", 100, "readers are not shared evenly"),
        ("pt1_11b_8", "data", "global_data_workers", 16, "fewer readers than cores owed"),
        ("pt2_11b_64", "data", "shuffle_buffer", 500, "buffers"),
        ("pt1_11b_1", "guard", "hang_seconds", 60.0, "hang"),
        ("pt2_11b_8", "train", "save_every", 250, "checkpoints"),
    ],
)  # fmt: skip
def test_a_recipe_that_is_wrong_is_complained_about(name: str, group: str, field: str, value: object, words: str) -> None:
    config = recipe(name)
    wrong = dataclasses.replace(config, **{group: dataclasses.replace(getattr(config, group), **{field: value})})
    found = complaints(wrong)
    assert words in "; ".join(found), found


def test_a_layout_that_is_slow_is_noticed() -> None:
    config = recipe("pt2_11b_64")
    slow = next(
        other for other in candidates(config, 8)
        if (other.parallel.tensor, other.parallel.pipeline, other.parallel.context) == (8, 1, 1)
    )  # fmt: skip
    assert _slowness(dataclasses.replace(config, parallel=slow.parallel)) > NEAR


@pytest.mark.parametrize("launcher", choices("launcher"))
def test_every_launcher_starts_a_recipe_on_its_nodes_and_the_command_line_has_the_last_word(
    launcher: str, tmp_path: Path
) -> None:
    config = compose(["experiment=pt2_11b_64", f"launcher={launcher}"])
    assert (config.launcher.kind, config.launcher.nodes, config.launcher.nproc_per_node) == (launcher, 8, 8)
    changed = compose(["experiment=pt2_11b_64", f"launcher={launcher}", "launcher.nodes=4", "parallel=tp8", "optimizer=sgd"])
    assert (changed.launcher.nodes, changed.parallel.tensor, changed.parallel.pipeline) == (4, 8, 1)
    assert changed.optimizer.name == "sgd" and changed.train.save_every == config.train.save_every
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config


def test_a_recipe_is_launched_on_its_nodes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["launch", "slurm", "experiment=pt2_90b_64", f"run_dir={tmp_path}", "--dry-run"]) == 0
    script = capsys.readouterr().out
    assert "--nodes=8\n" in script and "NPROC_PER_NODE=8" in script
    wrong = ["launch", "slurm", "experiment=pt2_90b_64", "parallel=tp8", f"run_dir={tmp_path}", "--dry-run"]
    assert main(wrong) == 2
    assert "an H100 has" in capsys.readouterr().err


def test_a_plan_is_of_the_launchers_ranks_and_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    def planned(*words: str) -> tuple[int, str]:
        assert main(["plan", *words, "--json"]) == 0
        values = json.loads(capsys.readouterr().out)
        return values["ranks"], values["gpu"]

    assert planned("experiment=pt2_90b_64_h200") == (64, "H200")
    assert planned("experiment=pt2_11b_8", "--ranks", "16", "--gpu", "H200") == (16, "H200")
    assert planned("stage=pt1", "parallel=tp2_pp2") == (4, "H200")


def test_an_unknown_recipe_is_refused_with_those_that_are_there() -> None:
    with pytest.raises(InputError, match=r"experiment=pt2_11b_7 is not known; use one of pt1_11b_1, .*pt2_11b_8"):
        compose(["experiment=pt2_11b_7"])


def test_recipes_are_short() -> None:
    long = [path.name for path in (conf_dir() / "experiment").rglob("*.yaml") if len(path.read_text().splitlines()) > 20]
    assert not long


def test_the_page_has_what_the_plans_say() -> None:
    """`python -m moss_train.planning.recipes` prints the tables anew."""
    page = (REPOSITORY / "docs" / "recipes.md").read_text(encoding="utf-8").splitlines()
    wanted = [line for line in tables() if line]
    assert [line for line in wanted if line not in page] == []
    written = [line for line in page if line.startswith("| `") and "_" in line and "b_" in line]
    assert [line for line in written if line not in wanted] == []
