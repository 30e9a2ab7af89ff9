"""launch/torchrun.sh: its command by environment, its sentences, and a real run with processes on this machine."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

import pytest

from moss_train.launching.folder import launch_dir

SCRIPT = launch_dir() / "torchrun.sh"
CLEAN = {
    name: value for name, value in os.environ.items() if name not in ("NNODES", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
} | {"PYTHON": sys.executable}


def _script(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(SCRIPT), *args], env=CLEAN | environment, capture_output=True, text=True, check=False, timeout=120
    )


def _dry(*args: str, **environment: str) -> list[str]:
    result = _script("--dry-run", *args, **environment)
    assert result.returncode == 0, result.stderr
    return shlex.split(result.stdout)


def test_one_node_takes_a_free_port() -> None:
    assert _dry("stage=pt1", "run_dir=a b", NPROC_PER_NODE="2") == [
        sys.executable,
        "-m",
        "moss_train.parallel.agent",
        "--nproc-per-node",
        "2",
        "--max-restarts",
        "0",
        "--nnodes",
        "1",
        "--standalone",
        "-m",
        "moss_train.cli.main",
        "train",
        "stage=pt1",
        "run_dir=a b",
    ]


def test_several_nodes_by_environment() -> None:
    words = _dry(
        "stage=pt1",
        NPROC_PER_NODE="8",
        NNODES="4",
        NODE_RANK="3",
        MASTER_ADDR="node0",
        MASTER_PORT="1234",
        TORCHRUN_ARGS="--tee 3",
    )
    assert words[3:-4] == [
        "--nproc-per-node",
        "8",
        "--max-restarts",
        "0",
        "--nnodes",
        "4",
        "--node-rank",
        "3",
        "--master-addr",
        "node0",
        "--master-port",
        "1234",
        "--tee",
        "3",
    ]


@pytest.mark.parametrize("more", [{"MIN_NODES": "2"}, {"MAX_RESTARTS": "3"}])
def test_nodes_that_come_and_go_number_themselves(more: dict[str, str]) -> None:
    words = _dry("stage=pt1", NPROC_PER_NODE="8", NNODES="4", NODE_RANK="3", MASTER_ADDR="node0", RUN_ID="pt1", **more)
    assert words[3:-4] == [
        *("--nproc-per-node", "8", "--max-restarts", more.get("MAX_RESTARTS", "0")),
        *("--nnodes", f"{more.get('MIN_NODES', '4')}:4", "--rdzv-backend", "c10d", "--rdzv-id", "pt1"),
        *("--rdzv-endpoint", "node0:29500"),
    ]


@pytest.mark.parametrize(
    ("args", "environment", "words"),
    [
        ((), {}, "nothing to train"),
        (("stage=pt1",), {"NNODES": "2"}, "MASTER_ADDR is not set"),
        (("stage=pt1",), {"NNODES": "two"}, "NNODES is 'two'"),
        (("stage=pt1",), {"NNODES": "2", "NODE_RANK": "2", "MASTER_ADDR": "a"}, "NODE_RANK is 2"),
        (("stage=pt1",), {"NNODES": "2", "MIN_NODES": "3", "MASTER_ADDR": "a"}, "MIN_NODES is 3"),
        (("stage=pt1",), {"MAX_RESTARTS": "-1"}, "MAX_RESTARTS is '-1'"),
        (("stage=pt1",), {"PYTHON": "/no/python"}, "/no/python"),
    ],
)
def test_bad_environment_is_one_sentence(args: tuple[str, ...], environment: dict[str, str], words: str) -> None:
    result = _script(*args, **environment)
    assert result.returncode == 2
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.ranks
def test_a_real_run_starts_every_rank_and_ends() -> None:
    result = _script("stage=pt1", "train.steps=7", "--print-config", NPROC_PER_NODE="2")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("steps: 7") >= 1


def test_a_mistake_in_the_configuration_is_said_once_before_any_rank_starts() -> None:
    result = _script("stage=pt1", "train.stpes=7", NPROC_PER_NODE="2")
    assert result.returncode == 2
    assert result.stderr == "moss: error: train.stpes is not a known setting; did you mean train.steps\n"
