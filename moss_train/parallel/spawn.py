"""Running one of our modules on several local ranks from a command, and getting its answer back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from model.errors import InputError

_PROGRESS = "MOSS_PROGRESS "


def run_on_ranks(
    module: str,
    ranks: int,
    arguments: Sequence[object],
    *,
    device: str = "auto",
    on_progress: Callable[[Any], None] | None = None,
) -> Any:
    """Starts `python -m module RESULT ARGUMENTS...` on local ranks with torchrun's variables and returns what rank 0 answered.

    The ranks use the CPU where there are fewer GPUs than ranks.

    Args:
        module: a module whose `main` ends with `answer`.
        ranks: number of processes.
        arguments: given to every rank after the path of the answer.
        device: auto | cpu | cuda; cpu hides all GPUs.
        on_progress: called with everything that a rank gives to `report_progress`, at once.

    Raises:
        InputError: the ranks found the input bad.
        RuntimeError: they ended without an answer; their last output goes to stderr.
    """
    import torch  # by the command alone: ranks that only answer need not wait for it

    with tempfile.TemporaryDirectory(prefix="moss_ranks_") as scratch:
        result = Path(scratch) / "answer.json"
        # Not by torchrun, whose own process takes longer to start than two ranks.
        command = [sys.executable, "-m", "moss_train.parallel.local_ranks", str(ranks), module, str(result), *map(str, arguments)]
        environment = {"OMP_NUM_THREADS": "1", "CUDA_DEVICE_MAX_CONNECTIONS": "1"} | dict(os.environ)
        if device == "cpu" or 0 < torch.cuda.device_count() < ranks:
            environment["CUDA_VISIBLE_DEVICES"] = ""  # too few GPUs for one each: all ranks use the CPU
        errors = Path(scratch) / "stderr"
        with errors.open("w", encoding="utf-8") as stderr:
            process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True)
            assert process.stdout is not None
            with process:
                try:
                    for line in process.stdout:
                        if on_progress is not None and line.startswith(_PROGRESS):
                            on_progress(json.loads(line.removeprefix(_PROGRESS)))
                except BaseException:
                    process.terminate()  # it ends its ranks
                    raise
        if not result.is_file():
            sys.stderr.write(errors.read_text(encoding="utf-8", errors="replace")[-4000:])
            raise RuntimeError(f"the {ranks} ranks of {module} ended with {process.returncode} and left no answer")
        content = json.loads(result.read_text(encoding="utf-8"))
    if "error" in content:
        raise InputError(content["error"])
    return content["answer"]


def report_progress(content: Any) -> None:
    """On a rank: hand a JSON value to the command that started the ranks."""
    print(_PROGRESS + json.dumps(content), flush=True)


def answer(result: Path, work: Callable[[], Any]) -> int:
    """Does the work on this rank; rank 0 writes what it returns, or the sentence of an InputError, to `result`.

    Bad input is found by every rank alike, so none is left waiting for another.
    """
    try:
        content = {"answer": work()}
    except InputError as error:
        content = {"error": str(error)}
    if os.environ.get("RANK", "0") == "0":
        partial = result.with_suffix(".tmp")
        partial.write_text(json.dumps(content), encoding="utf-8")
        os.replace(partial, result)
    return 0
