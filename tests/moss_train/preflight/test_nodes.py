"""Real nodes, as processes of this machine with names of their own, checked together: the right ones are named."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moss_train.cli.main import main as moss
from moss_train.preflight.report import EXIT_BAD_NODE
from tests.ranks import RunRanks

Check = Callable[..., tuple[dict[str, Any], str]]
OVERRIDES = [
    "run_dir=run",
    "launcher=torchrun",
    "device=cpu",
    "launcher.nproc_per_node=1",
    "launcher.preflight.allreduce_mib=0.25",
]


@pytest.fixture
def check(run_ranks: RunRanks, tmp_path: Path) -> Check:
    """`check(nodes, *overrides, expect=6, seconds=30)` -> report.json and what all nodes said."""

    def check(
        nodes: list[dict[str, Any]], *overrides: str, expect: int = EXIT_BAD_NODE, seconds: float = 30
    ) -> tuple[dict[str, Any], str]:
        words = [*OVERRIDES, f"launcher.preflight.timeout_seconds={seconds}", *overrides]
        (tmp_path / "here").mkdir(exist_ok=True)
        scenario = tmp_path / "scenario.json"
        scenario.write_text(json.dumps({"nodes": nodes, "overrides": words, "folder": str(tmp_path / "here")}))
        said = run_ranks("tests.moss_train.preflight.node_process", len(nodes), scenario, expect=expect)
        report = tmp_path / "here" / "run" / "launch" / "preflight" / "report.json"
        return (json.loads(report.read_text()) if report.is_file() else {}), said

    return check


def _named(report: dict[str, Any]) -> dict[str, str]:
    assert len({bad["node"] for bad in report["bad"]}) == len(report["bad"])
    return {bad["node"]: bad["why"] for bad in report["bad"]}


@pytest.mark.ranks
def test_healthy_nodes_pass(check: Check, tmp_path: Path) -> None:
    report, said = check([{}, {}], "launcher.nproc_per_node=2", expect=0)
    assert (report["exit_code"], report["bad"], report["faults"]) == (0, [], [])
    assert list(report["nodes"]) == ["gpu-0", "gpu-1"] and report["allreduce_gbytes"] > 0
    assert {check["check"] for check in report["nodes"]["gpu-1"]["checks"] if check["level"] == "ok"} >= {
        "clock",
        "versions",
        "folders",
    }
    assert report["nodes"]["gpu-0"]["facts"] == report["nodes"]["gpu-1"]["facts"]
    assert said.count("gpu-1") >= 1 and "moss: preflight: node" not in said
    left = [path.name for path in (tmp_path / "here" / "run").iterdir()]
    assert left == ["launch"]  # none of the files by which nodes see each other


@pytest.mark.ranks
def test_each_bad_node_is_named_with_its_own_reason(check: Check, tmp_path: Path) -> None:
    """Among four nodes; the check goes on for all others when one is bad."""
    (tmp_path / "elsewhere").mkdir()
    nodes: list[dict[str, Any]] = [
        {},
        {"folder": str(tmp_path / "elsewhere")},
        {"overrides": ["train.steps=7"]},
        {"clock": 34.2},
    ]
    report, said = check(nodes)
    bad = _named(report)
    assert set(bad) == {"gpu-1", "gpu-2", "gpu-3"} and report["faults"] == []
    assert bad["gpu-1"].startswith("does not see in run what node gpu-0 wrote there")
    assert bad["gpu-2"].startswith("configuration is ")
    assert bad["gpu-3"].startswith("clock is 34.2 s ahead of the middle of all (more than 2 s)")
    for name, why in bad.items():
        assert said.count(f"moss: preflight: node {name}: {why}") == 1
    assert report["allreduce_gbytes"] > 0  # over all of them


@pytest.mark.ranks
def test_node_that_breaks_all_reduces_is_found_by_pairs(check: Check) -> None:
    """Its ranks cannot listen: the others, which could, wait for it in vain and are not to blame."""
    begin = time.monotonic()
    report, _ = check([{}, {"environment": {"GLOO_SOCKET_IFNAME": "nowhere0"}}, {}], seconds=60)
    bad = _named(report)
    assert set(bad) == {"gpu-1"} and report["faults"] == []
    assert bad["gpu-1"].startswith("an all-reduce fails or is slow in all its pairs, with gpu-")
    assert "nowhere0" in bad["gpu-1"] and report["allreduce_gbytes"] > 0  # of the other two
    assert time.monotonic() - begin < 50  # nobody waits out the 60 s of one all-reduce


@pytest.mark.ranks
def test_network_that_is_too_slow_everywhere_is_no_single_nodes_fault(check: Check) -> None:
    report, said = check([{}, {}], "launcher.preflight.min_allreduce_gbytes=100000")
    assert report["bad"] == [] and len(report["faults"]) == 1
    assert report["faults"][0].startswith("all-reduce over nodes gpu-0, gpu-1: it reaches ")
    assert "so it is in every pair of nodes that was tried" in report["faults"][0] and report["faults"][0] in said


@pytest.mark.ranks
def test_of_two_nodes_the_one_that_fails_by_itself_is_named(check: Check) -> None:
    report, _ = check([{}, {"environment": {"GLOO_SOCKET_IFNAME": "nowhere0"}}], seconds=60)
    bad = _named(report)
    assert set(bad) == {"gpu-1"} and bad["gpu-1"].startswith("an all-reduce over all nodes: it failed on node gpu-1 with ")


@pytest.mark.ranks
def test_nodes_that_never_come_end_in_the_middle_or_cannot_write_are_named(check: Check, tmp_path: Path) -> None:
    in_the_way = tmp_path / "in_the_way"
    in_the_way.mkdir()
    (in_the_way / "run").write_text("no folder")
    nodes: list[dict[str, Any]] = [{}, {"dies": True}, {"folder": str(in_the_way)}]
    listed = {"SLURM_STEP_NODELIST": "gpu-[0-2],cpu-07", "NNODES": "4"}
    report, _ = check([node | {"environment": listed} for node in nodes], seconds=6)
    bad = _named(report)
    assert set(bad) == {"gpu-1", "gpu-2", "cpu-07"} and report["faults"] == []
    assert bad["gpu-2"].startswith("run_dir run cannot be written: ")
    assert bad["gpu-1"].startswith("started the check and then gave no answer within 6 s")
    assert bad["cpu-07"].startswith("did not start the check within 6 s")
    assert report["allreduce_gbytes"] > 0


@pytest.mark.ranks
def test_first_node_that_never_comes_is_named_by_the_others(check: Check) -> None:
    report, said = check([{"absent": True}, {}], seconds=1.5)
    assert report == {}
    assert "moss: preflight: node gpu-1: node 0 (rank 0) at 127.0.0.1 cannot be reached, or has ended" in said


@pytest.mark.ranks
def test_ranks_of_one_node_are_tried_by_themselves(check: Check) -> None:
    environment = {"GLOO_SOCKET_IFNAME": "nowhere0"}
    report, _ = check([{"environment": environment}], "launcher.nproc_per_node=2")
    assert _named(report)["gpu-0"].startswith("an all-reduce of its own ranks: it failed on node gpu-0 with ")


@pytest.mark.ranks
def test_what_jobs_that_fail_die_or_hang_say(run_ranks: RunRanks) -> None:
    assert "as expected" in run_ranks("tests.moss_train.preflight.failing_jobs", 1)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--nodes", "2", "--node-rank", "2"], "--node-rank is 2 with --nodes 2"),
        (["--nodes", "2"], "--master is not given"),
        (["--nodes", "2", "--master", "gpu-1:0"], "--master is 'gpu-1:0'; write HOST:PORT"),
        (["stage=nothing"], "stage"),
        (["launcher.preflight.timeout_seconds=0"], "launcher.preflight.timeout_seconds is 0"),
    ],
)
def test_bad_input_is_one_sentence(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("NNODES", "NODE_RANK", "MASTER_ADDR", "SLURM_NNODES", "SLURM_JOB_NODELIST", "SLURM_STEP_NODELIST"):
        monkeypatch.delenv(name, raising=False)
    assert moss(["preflight", *words]) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
