"""Inference stands alone: no part of it brings in megatron or the trainer."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import inference


def test_no_module_imports_the_trainer_or_megatron() -> None:
    names = [m.name for m in pkgutil.walk_packages(inference.__path__, "inference.")]
    assert {"inference.session", "inference.model.load", "inference.evaluation.scorers.speaking"} <= set(names)
    program = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\n"
    program += "print([m for m in sys.modules if m.split('.')[0] in ('megatron', 'moss_train', 'transformers')])"
    output = subprocess.run([sys.executable, "-c", program, *names], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"
