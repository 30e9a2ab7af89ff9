"""Where a node is, and what nodes must have alike."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import InputError
from moss_train.preflight.compare import judge_facts
from moss_train.preflight.data_folders import judge_data
from moss_train.preflight.findings import BAD, OK, Finding, Verdict
from moss_train.preflight.folders import check_folder, judge_sharing, mount_of
from moss_train.preflight.machine import check_machine, free_memory
from moss_train.preflight.place import expand_node_list, find_place

NAMES = st.from_regex(r"[a-z]{1,4}(-[a-z]{1,3})?", fullmatch=True)


@given(
    st.lists(
        st.tuples(NAMES, st.lists(st.tuples(st.integers(0, 120), st.integers(0, 9)), max_size=3), st.integers(1, 4)), max_size=4
    )
)
def test_lists_of_slurm_are_expanded(parts: list[tuple[str, list[tuple[int, int]], int]]) -> None:
    written, names = [], []
    for name, spans, width in parts:
        texts = [f"{a:0{width}}" if more == 0 else f"{a:0{width}}-{a + more:0{width}}" for a, more in spans]
        written.append(f"{name}[{','.join(texts)}]" if spans else name)
        names += [f"{name}{a + i:0{width}}" for a, more in spans for i in range(more + 1)] or [name]
    assert expand_node_list(",".join(written)) == names


def test_lists_with_several_brackets() -> None:
    assert expand_node_list("rack[1-2]-n[08,10]") == ["rack1-n08", "rack1-n10", "rack2-n08", "rack2-n10"]
    assert expand_node_list("gpu-[x]") == []


def test_place_is_taken_from_options_torchrun_or_slurm() -> None:
    slurm = {"SLURM_NNODES": "3", "SLURM_NODEID": "2", "SLURM_JOB_NODELIST": "gpu-[7-9]", "SLURMD_NODENAME": "gpu-9"}
    place = find_place(None, None, None, 29511, slurm)
    assert (place.name, place.node, place.nodes, place.host, place.port) == ("gpu-9", 2, 3, "gpu-7", 29511)
    assert place.expected_name(1) == "gpu-8"
    torchrun = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "10.0.0.5", "MASTER_PORT": "1234", "MOSS_NODE_NAME": "mine"}
    place = find_place(None, None, None, 29511, slurm | torchrun)
    assert (place.name, place.node, place.nodes, place.host, place.port) == ("mine", 1, 2, "10.0.0.5", 1234)
    assert place.expected_name(0) == "rank 0"  # Slurm's list is of three
    assert find_place(4, 3, "[fd00::1]:80", 1, torchrun).host == "fd00::1"
    assert find_place(None, None, None, 29511, {}).nodes == 1
    with pytest.raises(InputError, match="NNODES is '2:4' in the environment; it must be a whole number"):
        find_place(None, None, None, 29511, {"NNODES": "2:4"})


def _judged(*torch: str, name: str = "torch") -> Verdict:
    verdict = Verdict([f"gpu-{node}" for node in range(len(torch))])
    for node in verdict.findings:
        verdict.add(node, Finding("answer", OK, "answered"))
    judge_facts(verdict, {node: {"Python": "3.12.3", name: version} for node, version in enumerate(torch)})
    return verdict


def test_those_who_differ_from_the_most_are_named() -> None:
    verdict = _judged("2.11.0", "2.11.0", "2.10.0", "2.11.0")
    assert verdict.bad == [("gpu-2", "torch is 2.10.0, where most have 2.11.0; install the same version on all nodes")]
    assert [verdict.level(node, "versions") for node in range(4)] == [OK, OK, BAD, OK]


def test_a_tie_names_both_sides_and_no_node() -> None:
    verdict = _judged("2.11.0", "2.10.0", "2.10.0", "2.11.0")
    assert verdict.bad == []
    assert verdict.faults == [
        "torch differs and no side is the larger: 2.11.0 on gpu-0, gpu-3, 2.10.0 on gpu-1, gpu-2; "
        "install the same version on all nodes"
    ]


def test_another_kernel_is_a_warning() -> None:
    verdict = _judged("6.8", "6.8", "6.1", name="kernel")
    assert verdict.bad == [] and [name for name, _ in verdict.warnings] == ["gpu-2"]


def test_what_is_bad_on_all_nodes_is_none_of_theirs() -> None:
    verdict = _judged("1", "1")
    for node in (0, 1):
        verdict.add(node, Finding("folders", BAD, "full", "no room"))
    verdict.find_common()
    assert verdict.bad == [] and verdict.faults == ["on all nodes, of which gpu-0 says: no room"]


def test_first_node_is_named_where_its_folder_is_not_that_of_the_others(tmp_path: Path) -> None:
    mounts = {0: "ext4 /dev/vda1", 1: "nfs4 storage:/runs", 2: "nfs4 storage:/runs"}
    verdict = Verdict(["gpu-0", "gpu-1", "gpu-2"])
    judge_sharing(verdict, tmp_path, {1: False, 2: False}, {1: False, 2: False}, mounts)
    assert [name for name, _ in verdict.bad] == ["gpu-0"] and "(on ext4 /dev/vda1)" in verdict.bad[0][1]
    verdict = Verdict(["gpu-0", "gpu-1", "gpu-2"])
    judge_sharing(verdict, tmp_path, {1: False, 2: False}, {1: False, 2: False}, dict.fromkeys(range(3), "ext4 /dev/vda1"))
    assert verdict.bad == [] and len(verdict.faults) == 1  # three local disks


def test_data_must_be_readable_everywhere_or_nowhere() -> None:
    verdict = Verdict(["gpu-0", "gpu-1"])
    judge_data(
        verdict,
        {0: {"shards/video": "", "shards/text": "holds no shards"}, 1: dict.fromkeys(("shards/video", "shards/text"), "gone")},
    )
    assert [name for name, _ in verdict.bad] == ["gpu-1"] and "shards/video cannot be read: gone" in verdict.bad[0][1]
    assert len(verdict.faults) == 1 and verdict.faults[0].startswith("no node can read shards/text: ")


def test_folders_that_cannot_be_written_or_are_full(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert [finding.level for finding in check_folder(tmp_path / "new" / "run", 0.0, "run_dir")] == [OK]
    assert list((tmp_path / "new" / "run").iterdir()) == []
    for folder in (tmp_path / "file" / "run", Path("/proc/moss")):
        (finding,) = check_folder(folder, 0.0, "run_dir")
        assert finding.level == BAD and finding.why.startswith(f"run_dir {folder} cannot be written: ")
    (finding,) = check_folder(tmp_path, 1e9, "run_dir")
    assert finding.level == BAD and "less than launcher.preflight.min_disk_gib, which is 1e+09" in finding.why
    assert mount_of(Path("/proc/1")) == "proc proc"


def test_too_little_of_a_machine(tmp_path: Path) -> None:
    levels = {finding.level for finding in check_machine(10_000, 1e9)}
    whys = "\n".join(finding.why for finding in check_machine(10_000, 1e9))
    assert levels == {"bad", "warning"}
    assert "launcher.preflight.min_memory_gib, which is 1e+09" in whys and "CPU cores for 10000 processes" in whys
    (tmp_path / "memory.max").write_text("3000\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert free_memory(group=tmp_path) == 2000  # a container's share
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory(group=tmp_path) > 2**20
