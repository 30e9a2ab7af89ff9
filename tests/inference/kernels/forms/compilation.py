"""Compiles every kernel for Hopper as the 11B model calls it: `python -m tests.inference.kernels.forms.compilation [NAME ...]`.

Needs no GPU. Prints registers and shared memory; ends with an error where one does not compile or keeps registers in memory.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from inference.kernels.triton_forms import heads, norms, paged_attention, quantize, skinny

_TARGET = GPUTarget("cuda", 90, 32)
_POINTERS = {"slot_ptr": "*i64", "table_ptr": "*i32", "session_ptr": "*i32", "limit_ptr": "*i32"}
_WIDE = ("scale_ptr", "part_ptr", "stat_ptr")
_REAL = ("eps", "softmax_scale")
_ODD = (
    "rows",
    "splits",
    "width",
    "table_ptr",
    "scale_ptr",
    "slot_ptr",
    "session_ptr",
    "limit_ptr",
    "s_kind",
    "s_page",
    "s_row",
    "s_head",
    "gate_row",
    "pairs",
)
"""Arguments that need not be multiples of 16."""


def compiled(kernel: Any, constants: dict[str, Any], kinds: dict[str, str], *, warps: int, stages: int) -> Any:
    """A kernel for sm_90, its other arguments typed by their names: bf16 pointers, int32 numbers."""
    signature, attributes = {}, {}
    for place, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
            continue
        default = "*fp32" if name in _WIDE else "*bf16" if name.endswith("_ptr") else "fp32" if name in _REAL else "i32"
        signature[name] = kinds.get(name, _POINTERS.get(name, default))
        if name not in _ODD + _REAL:
            attributes[(place,)] = [["tt.divisibility", 16]]
    values = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(fn=kernel, signature=signature, constexprs=values, attrs=attributes)
    return triton.compile(source, target=_TARGET, options={"num_warps": warps, "num_stages": stages})


def stack_bytes(binary: bytes) -> int:
    """Bytes of memory that a thread needs beside its registers."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        listed = subprocess.run([str(tool), "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", listed)
    assert found is not None, listed
    print(f"{found[1]} registers", end=", ")
    return int(found[2])


def _attention(tile: int, splits: int, stages: int, kind: str = "bf16") -> tuple[Any, ...]:
    shape = {"HEADS": 32, "GROUP": 4, "GROUP_PAD": 4, "DIM": 128, "DIM_PAD": 128, "PAGE_ROWS": 101, "BLOCK": 64}
    rest = {"TILE": tile, "WHOLE": splits == 1, "SCALED": kind != "bf16", "EXACT": False}
    return paged_attention._attend, shape | rest, {"k_ptr": f"*{kind}", "v_ptr": f"*{kind}"}, 4, stages


CASES: dict[str, tuple[Any, ...]] = {
    "attention, decode": _attention(4, 33, 5),
    "attention, decode, fp8": _attention(4, 33, 5, "fp8e4nv"),
    "attention, prefill": _attention(16, 1, 3),
    "shares of keys": (paged_attention._combine, {"DIM": 128, "DIM_PAD": 128, "SPLITS_PAD": 64}, {}, 4, 3),
    "one row": (
        skinny._one_row,
        {"BLOCK_OUT": 8, "BLOCK_IN": 1024, "EVEN": True, "SCALED": False, "GLU": False, "STAGES": 1},
        {},
        4,
        1,
    ),
    "one row, fp8, gated": (
        skinny._one_row,
        {"BLOCK_OUT": 2, "BLOCK_IN": 2048, "EVEN": True, "SCALED": True, "GLU": True, "STAGES": 1},
        {"w_ptr": "*fp8e4nv"},
        4,
        1,
    ),
    "rows, fp8": (
        skinny._rows,
        {"BLOCK_OUT": 32, "BLOCK_IN": 256, "SPLITS": 4, "EVEN": True, "SCALED": True, "GLU": False, "EXACT": False},
        {"w_ptr": "*fp8e4nv"},
        4,
        4,
    ),
    "rows, gated": (
        skinny._rows,
        {"BLOCK_OUT": 32, "BLOCK_IN": 128, "SPLITS": 2, "EVEN": True, "SCALED": False, "GLU": True, "EXACT": False},
        {},
        4,
        4,
    ),
    "shares of columns": (skinny._add_shares, {"BLOCK": 1024, "SPLITS": 4, "SCALED": True, "GLU": True}, {}, 4, 3),
    "rows to fp8": (quantize._quantize, {"BLOCK": 16384}, {"out_ptr": "*fp8e4nv"}, 16, 3),
    "sum and norm": (norms._add_rms_norm, {"ADD": True, "GATED": True, "BLOCK": 4096}, {}, 8, 3),
    "rotation into fp8 pages": (
        heads._heads,
        {
            "QUERIES": 0,
            "KV_HEADS": 8,
            "HALF": 64,
            "HALF_PAD": 64,
            "PAGE_ROWS": 101,
            "POSITION_ROWS": 101,
            "NORM": 2,
            "RAW": True,
            "SCALED": True,
        },
        {"k_ptr": "*fp8e4nv", "v_ptr": "*fp8e4nv"},
        1,
        3,
    ),
}


def main(names: Sequence[str]) -> int:
    spilled = []
    for name in names or CASES:
        kernel, constants, kinds, warps, stages = CASES[name]
        done = compiled(kernel, constants, kinds, warps=warps, stages=stages)
        print(f"{name}: ", end="")
        stack = stack_bytes(done.asm["cubin"])
        print(f"{done.metadata.shared} bytes of shared memory, {stack} bytes of stack")
        if stack:
            spilled.append(name)
    if spilled:
        print(f"registers in memory: {', '.join(spilled)}", file=sys.stderr)
    return bool(spilled)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
