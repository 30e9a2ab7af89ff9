"""Memory, shared memory, open files and cores of this node. Imports no torch."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

from moss_train.preflight.findings import BAD, OK, WARNING, Finding

GIB = 2**30
SHARED_MEMORY_GIB = 1.0
"""Of /dev/shm for each process: loaders hand over their micro-batches there."""
FILES, FILES_A_PROCESS = 512, 256


def check_machine(processes: int, min_memory_gib: float, *, shared_memory: Path = Path("/dev/shm")) -> list[Finding]:
    """What is too little for `processes` ranks, or one finding that all is well."""
    found = list(_troubles(processes, min_memory_gib, shared_memory))
    return found or [Finding("machine", OK, f"{free_memory() / GIB:.1f} GiB free")]


def _troubles(processes: int, min_memory_gib: float, shared_memory: Path) -> Iterator[Finding]:
    free = free_memory() / GIB
    if free < min_memory_gib:
        why = (
            f"{free:.1f} GiB of memory are free, less than launcher.preflight.min_memory_gib, which is {min_memory_gib:g}; "
            "end what uses it, or leave the node out"
        )
        yield Finding("machine", BAD, f"{free:.1f} GiB free", why)
    if shared_memory.is_dir():
        size = shutil.disk_usage(shared_memory).total / GIB
        if size < SHARED_MEMORY_GIB * processes:
            why = (
                f"{shared_memory} has {size:.2f} GiB for {processes} processes, whose loaders hand over micro-batches there; "
                "mount it larger (--shm-size of docker, an emptyDir of Kubernetes), or set data.worker_processes=0"
            )
            yield Finding("machine", WARNING, f"{shared_memory} {size:.2f} GiB", why)
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files != resource.RLIM_INFINITY and files < FILES + FILES_A_PROCESS * processes:
        why = (
            f"a process may open {files} files, few for {processes} ranks with their loaders; "
            f"raise it, `ulimit -n {FILES + FILES_A_PROCESS * processes}` or more in launcher.slurm.setup"
        )
        yield Finding("machine", WARNING, f"{files} files", why)
    cores = len(os.sched_getaffinity(0))
    if cores < processes:
        why = f"{cores} CPU cores for {processes} processes; ask for more (launcher.slurm.cpus_per_task), or start fewer"
        yield Finding("machine", WARNING, f"{cores} cores", why)


def free_memory(meminfo: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that can still be had, of the machine or of this container's share, whichever is less."""
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    free = int(lines["MemAvailable"].split()[0]) * 1024
    try:
        most, used = (group / "memory.max").read_text().strip(), int((group / "memory.current").read_text())
    except (OSError, ValueError):
        return free
    return min(free, max(0, int(most) - used)) if most.isdecimal() else free
