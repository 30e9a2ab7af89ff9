"""Triton for a GPU that is not there: launches compile the real kernels with their real arguments, and run nothing.

Operands lie on the meta device, which takes no memory, so a model of any size can be walked through in seconds.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase
from triton.runtime import driver

from model.kernels.select import planning

_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
_USAGE = re.compile(r"REG:(\d+) STACK:(\d+)")
HOPPER_UNITS = 132
"""Multiprocessors of an H100 or H200."""
_SHARED_BYTES = 232_448
"""Shared memory that a program of compute capability 9.0 may take."""
_REGISTERS, _UNIT_SHARED, _UNIT_THREADS, _UNIT_PROGRAMS = 65_536, 233_472, 2048, 32
"""Of a multiprocessor of compute capability 9.0."""


FEW_BYTES = {"_attend": 48, "_one_row": 48}
"""Of a thread's values in memory, by kernel: launches that were measured to be faster than those with all values in registers."""


@dataclass
class Compiled:
    """One kernel as compiled for one set of constants and types of arguments."""

    name: str
    signature: dict[str, str]
    constants: dict[str, Any]
    threads: int
    registers: int
    stack: int
    """Bytes of memory that a thread needs beside its registers: what was spilled."""
    shared: int
    """Bytes."""
    launches: int = 0
    programs: int = 0
    """Of the largest launch."""

    @property
    def spills(self) -> bool:
        """Whether more was spilled than does no harm."""
        return self.stack > FEW_BYTES.get(self.name, 0)

    @property
    def at_once(self) -> int:
        """Programs that fit on a multiprocessor."""
        # Registers are given out by warps, 256 at a time; the system takes 1 KiB of shared memory a program.
        registers = self.threads * -(-self.registers // 8) * 8
        shared = self.shared + 1024
        return min(_REGISTERS // registers, _UNIT_SHARED // shared, _UNIT_THREADS // self.threads, _UNIT_PROGRAMS)

    def line(self) -> str:
        """For people."""
        told = " ".join(f"{name}={value}" for name, value in self.constants.items())
        return (
            f"{self.name} [{told}] {self.threads} threads, {self.registers} registers, {self.stack} bytes spilled, "
            f"{self.shared} bytes shared: {self.at_once} at once on a multiprocessor, {self.programs} programs, "
            f"{self.launches} launches"
        )


def has_compiler() -> bool:
    """Triton's own assembler and the tool that reads its result are there."""
    return (_TOOLS / "ptxas").exists() and (_TOOLS / "cuobjdump").exists()


def _resources(binary: bytes) -> tuple[int, int]:
    """(registers, bytes of stack) of a thread."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        told = subprocess.run([str(_TOOLS / "cuobjdump"), "-res-usage", file.name], capture_output=True, text=True, check=True)
    found = _USAGE.search(told.stdout)
    if found is None:
        raise RuntimeError(f"cuobjdump says nothing of registers: {told.stdout!r}")
    return int(found[1]), int(found[2])


class _Tools:
    """What Triton asks of a device when a kernel is loaded."""

    def __init__(self) -> None:
        self.found: list[Compiled] = []

    def get_device_properties(self, _device: int) -> dict[str, int]:
        return {"max_shared_mem": _SHARED_BYTES, "multiprocessor_count": HOPPER_UNITS}

    def load_binary(self, _name: str, binary: bytes, _shared: int, _device: int) -> tuple[Any, Any, int, int, int]:
        compiled = self.found[-1]  # its launcher was made just before
        compiled.registers, compiled.stack = _resources(binary)
        return compiled, compiled, compiled.registers, compiled.stack // 4, 1024

    def unload_module(self, _module: Any) -> None:
        pass


@dataclass
class _Driver(DriverBase):  # type: ignore[misc]
    """A device of compute capability 9.0 that counts launches."""

    utils: _Tools = field(default_factory=_Tools)

    @classmethod
    def is_active(cls) -> bool:
        return True

    def map_python_to_cpp_type(self, ty: str) -> str:
        return ty

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_active_torch_device(self) -> Any:
        raise RuntimeError("nothing runs here: kernels are compiled only")

    def get_benchmarker(self) -> Any:
        raise RuntimeError("nothing runs here, so nothing is timed")

    def get_current_device(self) -> int:
        return -1  # kernels compiled here are no other device's

    def get_current_stream(self, _device: int) -> int:
        return 0

    def launcher_cls(self, source: Any, metadata: Any) -> Any:
        if metadata.global_scratch_size:
            raise RuntimeError(f"{metadata.name} needs memory of the device for itself, which a graph cannot take")
        constants = {source.fn.arg_names[place[0]]: value for place, value in source.constants.items()}
        compiled = Compiled(metadata.name, source.signature, constants, metadata.num_warps * 32, 0, 0, metadata.shared)
        self.utils.found.append(compiled)

        def launch(across: int, down: int, deep: int, *_rest: Any) -> None:
            compiled.launches += 1
            compiled.programs = max(compiled.programs, across * down * deep)

        return launch


@contextmanager
def compile_only() -> Iterator[list[Compiled]]:
    """Within, kernels whose operands are on the meta device are compiled as for a Hopper GPU; gives all that were, in order.

    A kernel that does not compile or asks for more than the GPU has raises what it would there.
    """
    before = driver._active
    ours = _Driver()
    driver.set_active(ours)
    try:
        with planning(HOPPER_UNITS):
            yield ours.utils.found
    finally:
        driver._active = before
