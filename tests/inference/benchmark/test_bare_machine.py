"""The kit runs where only torch, numpy and safetensors are installed."""

from __future__ import annotations

import subprocess
import sys

import pytest

MISSING = ("hydra", "omegaconf", "tokenizers", "av", "rich", "rich_argparse", "megatron", "transformers", "webdataset", "yaml")
PROGRAM = """
import importlib, importlib.abc, sys
missing = set(sys.argv[1].split(","))
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
module = importlib.import_module(sys.argv[2])
if sys.argv[3:]:
    sys.argv = sys.argv[2:]
    raise SystemExit(module.main())
"""


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-c", PROGRAM, ",".join(MISSING), *arguments]
    return subprocess.run(program, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("module", ["vision", "kernels", "sampling", "cache_passes", "preflight", "questions"])
def test_the_other_programs_import(module: str) -> None:
    assert _run(f"inference.benchmark.{module}").returncode == 0


def test_parts_are_measured_and_what_needs_more_is_named() -> None:
    ended = _run("inference.benchmark.__main__", "--model", "tiny", "--device", "cpu", "--only", "chip,decode,from-file,peer")
    assert ended.returncode == 0, ended.stderr
    assert "decode: ends at" in ended.stderr and "decoding, bf16 (tokens/s) | " in ended.stdout
    assert "* from-file: No module named 'av'" in ended.stdout
    assert "* peer: transformers has no Qwen2.5-VL here" in ended.stdout
