"""GPUs as nvidia-smi tells of them, by a program of that name with its answers; ports as the kernel shows them, in a folder."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from moss_train.preflight.findings import BAD, OK, WARNING, Verdict
from moss_train.preflight.gpus import Gpu, check_gpus, judge_products, list_gpus
from moss_train.preflight.network import check_interface, judge_ports, read_ports

H100 = {
    "name": "NVIDIA H100 80GB HBM3",
    "driver_version": "580.159.04",
    "memory.total": "81559",
    "memory.used": "0",
    "ecc.errors.uncorrected.volatile.total": "0",
    "retired_pages.pending": "[N/A]",
    "clocks_throttle_reasons.hw_slowdown": "Not Active",
    "clocks_throttle_reasons.hw_thermal_slowdown": "Not Active",
    "clocks_throttle_reasons.sw_thermal_slowdown": "Not Active",
    "clocks_throttle_reasons.hw_power_brake_slowdown": "Not Active",
    "remapped_rows.pending": "No",
    "remapped_rows.failure": "No",
}
PROGRAM = """#!/usr/bin/env python3
import json, sys
rows = json.load(open({table!r}))
query = next(word for word in sys.argv if word.startswith("--query-"))
fields = query.partition("=")[2].split(",")
assert "--format=csv,noheader,nounits" in sys.argv
for field in fields:
    if field not in rows[0]:
        print(f'Field "{{field}}" is not a valid field to query.\\n')
        sys.exit(2)
for row in rows:
    print(", ".join(row[field] for field in fields))
"""


def _smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *changes: dict[str, str], without: tuple[str, ...] = ()) -> list[Gpu]:
    """What `list_gpus` says of a node with a GPU for each of the changes."""
    rows = [
        H100 | {"index": str(i), "uuid": f"GPU-{i}f5e", "gpu_uuid": f"GPU-{i}f5e"} | change for i, change in enumerate(changes)
    ]
    table, program = tmp_path / "table.json", tmp_path / "nvidia-smi"
    table.write_text(json.dumps([{name: value for name, value in row.items() if name not in without} for row in rows]))
    program.write_text(PROGRAM.format(table=str(table)))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    gpus, trouble = list_gpus()
    assert trouble == ""
    return gpus


def test_healthy_gpus_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with a driver that does not know some of the fields (gpu_recovery_action is in none of these tables)."""
    gpus = _smi(tmp_path, monkeypatch, {}, {}, without=("retired_pages.pending", "remapped_rows.failure"))
    (finding,) = check_gpus(gpus, "", 2)
    assert (finding.level, finding.value) == (OK, "2 x NVIDIA H100 80GB HBM3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert [gpu.index for gpu in list_gpus()[0]] == ["1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1f,0")
    assert [gpu.index for gpu in list_gpus()[0]] == ["1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert list_gpus() == ([], "")


@pytest.mark.parametrize(
    ("change", "level", "words"),
    [
        ({"memory.used": "31744"}, BAD, "31.0 of GPU 1's 79.6 GiB are in use"),
        ({"ecc.errors.uncorrected.volatile.total": "3"}, BAD, "GPU 1 had 3 uncorrected memory errors"),
        ({"ecc.errors.uncorrected.volatile.total": "[N/A]"}, OK, ""),
        ({"retired_pages.pending": "Yes"}, BAD, "GPU 1 has broken memory that is replaced at its next start"),
        ({"remapped_rows.pending": "Yes"}, BAD, "GPU 1 has broken memory that is replaced at its next start"),
        ({"remapped_rows.failure": "Yes"}, BAD, "GPU 1 has no spare memory rows left"),
        ({"memory.used": "[GPU requires reset]"}, BAD, "GPU 1 answers [GPU requires reset]"),
        ({"gpu_recovery_action": "Reboot"}, BAD, "GPU 1's driver asks for recovery (Reboot)"),
        ({"clocks_throttle_reasons.hw_thermal_slowdown": "Active"}, WARNING, "GPU 1 is slowed down: it is too hot"),
    ],
)
def test_a_sick_gpu_is_named(
    change: dict[str, str], level: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    healthy = {"gpu_recovery_action": "None"} if "gpu_recovery_action" in change else {}
    gpus = _smi(tmp_path, monkeypatch, healthy, healthy | change)
    (finding,) = check_gpus(gpus, "", 2)
    assert finding.level == level and words in finding.why


def test_counts_and_a_driver_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = _smi(tmp_path, monkeypatch, {}, {})
    assert [finding.level for finding in check_gpus(gpus, "", 4)] == [BAD]
    assert [finding.level for finding in check_gpus(gpus, "", 1)] == [WARNING]
    assert check_gpus([], "", 1) == []
    assert "launcher.gpu is H100, but this node shows no GPU" in check_gpus([], "", 1, "launcher.gpu is H100")[0].why
    said = "Failed to initialize NVML: Driver/library version mismatch"
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\necho '{said}'\nexit 18\n")
    gpus, trouble = list_gpus()
    assert (gpus, trouble) == ([], said)
    assert check_gpus(gpus, trouble, 2)[0].level == BAD


def _product(tflops: float, digest: str = "a", model: str = "H100") -> dict[str, Any]:
    return {"model": model, "digest": digest, "tflops": tflops}


def test_gpus_that_are_slow_or_wrong_are_named() -> None:
    verdict = Verdict(["gpu-0", "gpu-1", "gpu-2"])
    products = {
        0: [_product(700), _product(690)],
        1: [_product(710), _product(480)],
        2: [_product(705, digest="b"), {"error": "ended by SIGABRT"}, _product(300, "c", "A100")],
    }
    judge_products(verdict, products)
    assert [(name, why.split(":")[0].split(";")[0]) for name, why in verdict.bad] == [
        ("gpu-1", "GPU 1 multiplies matrices at 480 TFLOP/s, the middle of all H100 at 700"),
        ("gpu-2", "GPU 1 cannot multiply matrices"),
        ("gpu-2", "GPU 0 gives another product of the same matrices than most H100"),
    ]
    assert not verdict.faults


def test_two_gpus_that_disagree_are_both_told() -> None:
    verdict = Verdict(["gpu-0", "gpu-1"])
    judge_products(verdict, {0: [_product(700)], 1: [_product(700, "b")]})
    assert verdict.bad == [] and "a of GPU 0 on gpu-0, b of GPU 0 on gpu-1" in verdict.faults[0]


def _port(classes: Path, name: str, state: str, rate: str) -> None:
    folder = classes / "infiniband" / name / "ports" / "1"
    folder.mkdir(parents=True)
    (folder / "state").write_text(state + "\n")
    (folder / "rate").write_text(rate + "\n")


def test_ports_that_are_down_or_slow_are_named(tmp_path: Path) -> None:
    """mlx5_2 is used on no node but one, which is no fault of the others."""
    names = [f"gpu-{node}" for node in range(4)]
    for node, name in enumerate(names):
        _port(tmp_path / name, "mlx5_0", "1: DOWN" if node == 1 else "4: ACTIVE", "400 Gb/sec (4X NDR)")
        _port(tmp_path / name, "mlx5_1", "4: ACTIVE", "100 Gb/sec (1X NDR)" if node == 3 else "400 Gb/sec (4X NDR)")
        _port(tmp_path / name, "mlx5_2", "4: ACTIVE" if node == 0 else "2: INIT", "100 Gb/sec (4X EDR)")
    _port(tmp_path / "gpu-2", "mlx5_9", "4: ACTIVE", "10 Gb/sec")
    ports = {node: read_ports(tmp_path / name) for node, name in enumerate(names)}
    assert ports[1]["mlx5_0/1"] == (False, 400.0) and ports[3]["mlx5_1/1"] == (True, 100.0)
    verdict = Verdict(names)
    judge_ports(verdict, ports)
    assert [(name, why.partition(",")[0].partition(";")[0]) for name, why in verdict.bad] == [
        ("gpu-1", "network port mlx5_0/1 is not active"),
        ("gpu-3", "network port mlx5_1/1 runs at 100 Gb/s"),
    ]
    assert verdict.warnings == [] and verdict.faults == []


def test_interface_of_the_default_route(tmp_path: Path) -> None:
    routes, net = tmp_path / "route", tmp_path / "net" / "eth1"
    net.mkdir(parents=True)
    head = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
    rows = (
        "eth0\t00000000\t010200C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n",
        "eth1\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n",
    )
    routes.write_text(head + "".join(rows))
    (net / "operstate").write_text("down\n")
    (net / "mtu").write_text("9000\n")
    (finding,), facts = check_interface(tmp_path, routes)
    assert (
        finding.level == BAD and "eth1, the interface of the default route, is down" in finding.why and facts == {"MTU": "9000"}
    )
    (net / "operstate").write_text("up\n")
    assert check_interface(tmp_path, routes)[0][0].level == OK
    assert check_interface(tmp_path, tmp_path / "missing")[1] == {}
