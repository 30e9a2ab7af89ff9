"""GPUs: what nvidia-smi says about their health, and the product of matrices that all of a kind must give alike.
Imports no torch."""

from __future__ import annotations

import csv
import os
import re
import shutil
import statistics
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moss_train.preflight.compare import majority
from moss_train.preflight.findings import BAD, OK, WARNING, Finding, Verdict

SLOWEST_SHARE = 0.7
"""Of the median speed of GPUs of the same model, below which one is slow."""
OCCUPIED_MIB = 2048
"""Memory in use beyond which somebody else is on a GPU: the driver itself takes some hundreds."""
_DRIVER = Path("/proc/driver/nvidia/version")
_SECONDS = 60.0
_UNKNOWN_FIELD = re.compile(r'Field "([^"]+)" is not a valid field')
_REASONS = {
    "clocks_throttle_reasons.hw_slowdown": "the hardware slows it down",
    "clocks_throttle_reasons.hw_thermal_slowdown": "it is too hot",
    "clocks_throttle_reasons.sw_thermal_slowdown": "it is too hot",
    "clocks_throttle_reasons.hw_power_brake_slowdown": "its power supply brakes it",
}
_FIELDS = (
    "index",
    "uuid",
    "name",
    "driver_version",
    "memory.total",
    "memory.used",
    "ecc.errors.uncorrected.volatile.total",
    "retired_pages.pending",
    "gpu_recovery_action",
    *_REASONS,
)
_ROWS = ("gpu_uuid", "remapped_rows.pending", "remapped_rows.failure")
_RESET = "reset the GPU (nvidia-smi -r) or reboot the node; if it comes back, have the card replaced"


@dataclass(frozen=True)
class Gpu:
    """A GPU as nvidia-smi describes it; fields that its driver does not know are left out, unsupported ones are `[N/A]`."""

    fields: Mapping[str, str]

    @property
    def index(self) -> str:
        return self.fields.get("index", "?")

    @property
    def model(self) -> str:
        return self.fields.get("name", "?")

    def number(self, name: str) -> float | None:
        """The value of a field; None where there is none."""
        match = re.match(r"-?\d+(\.\d+)?", self.fields.get(name, ""))
        return float(match.group()) if match else None


def list_gpus(environment: Mapping[str, str] = os.environ) -> tuple[list[Gpu], str]:
    """The GPUs that this process may use, and what kept nvidia-smi from telling; both empty where there is none.

    `CUDA_VISIBLE_DEVICES` is minded.
    """
    if environment.get("CUDA_VISIBLE_DEVICES") == "":
        return [], ""
    if shutil.which("nvidia-smi", path=environment.get("PATH")) is None:
        return [], "the driver is loaded, but nvidia-smi is not on PATH" if _DRIVER.exists() else ""
    try:
        rows = _query("gpu", _FIELDS)
    except (OSError, subprocess.SubprocessError, _QueryError) as error:
        return [], str(error)
    try:
        remapped = {row["gpu_uuid"]: row for row in _query("remapped-rows", _ROWS)}
    except (OSError, subprocess.SubprocessError, _QueryError):
        remapped = {}
    gpus = [Gpu(row | remapped.get(row.get("uuid", ""), {})) for row in rows]
    return _visible(gpus, environment.get("CUDA_VISIBLE_DEVICES")), ""


class _QueryError(Exception):
    """nvidia-smi ended with an error; its own words."""


def _query(what: str, fields: Sequence[str]) -> list[dict[str, str]]:
    """One row a GPU. Fields that this driver does not know are asked for no more."""
    left = list(fields)
    while True:
        command = ["nvidia-smi", f"--query-{what}={','.join(left)}", "--format=csv,noheader,nounits"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        said = (done.stdout + done.stderr).strip()
        unknown = _UNKNOWN_FIELD.search(said)
        if unknown and unknown.group(1) in left:
            left.remove(unknown.group(1))
            continue
        if done.returncode != 0:
            raise _QueryError((said.splitlines() or [f"nvidia-smi ended with code {done.returncode}"])[0])
        rows = csv.reader(done.stdout.splitlines(), skipinitialspace=True)
        return [dict(zip(left, row, strict=False)) for row in rows if row]


def _visible(gpus: list[Gpu], chosen: str | None) -> list[Gpu]:
    if chosen is None:
        return gpus
    names = [name.strip() for name in chosen.split(",") if name.strip()]
    return [
        gpu
        for name in names
        for gpu in gpus
        if gpu.index == name or (name.startswith("GPU-") and gpu.fields.get("uuid", "").startswith(name))
    ]


def check_gpus(gpus: Sequence[Gpu], trouble: str, processes: int, wanted: str = "") -> list[Finding]:
    """Count and health of this node's GPUs; nothing to say where it has none and nothing speaks for one.

    Args:
        trouble: why they could not be listed.
        processes: that need one each.
        wanted: the setting that asks for GPUs, if there is one.
    """
    if trouble:
        why = f"its GPUs cannot be listed: {trouble}; look at the driver (dmesg), reboot the node or leave it out"
        return [Finding("gpus", BAD, "not listed", why)]
    if not gpus and wanted:
        why = f"{wanted}, but this node shows no GPU; ask for GPUs or look at its driver; CPU ranks need device=cpu"
        return [Finding("gpus", BAD, "no GPU", why)]
    if not gpus:
        return []
    found: list[Finding] = []
    if len(gpus) < processes:
        why = (
            f"{len(gpus)} GPUs for {processes} processes (launcher.nproc_per_node); ask for more, look for one that has fallen "
            "off the bus (dmesg, lspci), or start fewer"
        )
        found.append(Finding("gpus", BAD, f"{len(gpus)} GPUs", why))
    elif len(gpus) > processes:
        why = f"{processes} of {len(gpus)} GPUs are used; raise launcher.nproc_per_node to use all"
        found.append(Finding("gpus", WARNING, f"{len(gpus)} GPUs", why))
    found += [finding for gpu in gpus for finding in _health(gpu)]
    return found or [Finding("gpus", OK, f"{len(gpus)} x {gpus[0].model}")]


def _health(gpu: Gpu) -> Iterator[Finding]:
    name = f"GPU {gpu.index}"
    broken = [value for value in gpu.fields.values() if "requires reset" in value or "ERR!" in value or "is lost" in value]
    if broken:
        yield Finding("gpus", BAD, f"{name} broken", f"{name} answers {broken[0]}; {_RESET}")
    used, total = gpu.number("memory.used"), gpu.number("memory.total")
    if used is not None and used > OCCUPIED_MIB:
        why = f"{used / 1024:.1f} of {name}'s {(total or 0) / 1024:.1f} GiB are in use; end that process (nvidia-smi lists it)"
        yield Finding("gpus", BAD, f"{name} in use", why)
    errors = gpu.number("ecc.errors.uncorrected.volatile.total")
    if errors:
        yield Finding(
            "gpus", BAD, f"{name} ECC", f"{name} had {errors:.0f} uncorrected memory errors since it was started; {_RESET}"
        )
    if gpu.fields.get("remapped_rows.failure") == "Yes":
        why = f"{name} has no spare memory rows left to replace broken ones; have the card replaced"
        yield Finding("gpus", BAD, f"{name} rows", why)
    if "Yes" in (gpu.fields.get("retired_pages.pending"), gpu.fields.get("remapped_rows.pending")):
        yield Finding("gpus", BAD, f"{name} pages", f"{name} has broken memory that is replaced at its next start; {_RESET}")
    action = gpu.fields.get("gpu_recovery_action", "None")
    if action not in ("None", "[N/A]", "N/A", "[Not Supported]"):
        yield Finding("gpus", BAD, f"{name} {action}", f"{name}'s driver asks for recovery ({action}); {_RESET}")
    reasons = sorted({text for field, text in _REASONS.items() if gpu.fields.get(field) == "Active"})
    if reasons:
        why = f"{name} is slowed down: {' and '.join(reasons)}; look at cooling and power if it stays so"
        yield Finding("gpus", WARNING, f"{name} slowed", why)


def judge_products(verdict: Verdict, products: Mapping[int, Sequence[Mapping[str, Any]]]) -> None:
    """Hold the products of matrices of all GPUs against each other.

    Args:
        products: by node, of each GPU: `model`, `digest`, `tflops`; or `error`.
    """
    for node, found in products.items():
        speeds = sorted(p["tflops"] for p in found if "error" not in p)
        if speeds:
            verdict.add(node, Finding("gpus", OK, f"{speeds[0]:.0f} to {speeds[-1]:.0f} TFLOP/s"))
    good = [(node, i, p) for node, found in products.items() for i, p in enumerate(found) if "error" not in p]
    for node, found in products.items():
        for i, product in enumerate(found):
            if "error" in product:
                why = f"GPU {i} cannot multiply matrices: {product['error']}; {_RESET}"
                verdict.add(node, Finding("gpus", BAD, f"GPU {i} fails", why))
    for model in sorted({p["model"] for _, _, p in good}):
        alike = [(node, i, p) for node, i, p in good if p["model"] == model]
        usual = majority({n: p["digest"] for n, (_, _, p) in enumerate(alike)})
        if usual is None:
            sides = ", ".join(f"{p['digest']} of GPU {i} on {verdict.names[node]}" for node, i, p in alike)
            verdict.faults.append(
                f"GPUs of the model {model} disagree on a product of matrices: {sides}; leave out one and repeat"
            )
        middle = statistics.median(p["tflops"] for _, _, p in alike)
        for node, i, product in alike:
            if usual is not None and product["digest"] != usual:
                why = f"GPU {i} gives another product of the same matrices than most {model}: it computes wrongly; {_RESET}"
                verdict.add(node, Finding("gpus", BAD, f"GPU {i} wrong", why))
            if product["tflops"] < SLOWEST_SHARE * middle:
                why = (
                    f"GPU {i} multiplies matrices at {product['tflops']:.0f} TFLOP/s, the middle of all {model} at {middle:.0f}; "
                    "look at its clocks, cooling and power (nvidia-smi -q), or leave the node out"
                )
                verdict.add(node, Finding("gpus", BAD, f"GPU {i} {product['tflops']:.0f} TFLOP/s", why))
