"""Level 3: two ranks train the smallest model on the clips, with their readers in 0, 1 or 2 processes each."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.errors import InputError
from moss_train.bench.data.clips import Clips
from moss_train.bench.data.meter import Say, cpu_seconds
from moss_train.bench.data.setups import model_of, tokenizer_of

RANKS = 2
READERS = 4
STEPS = 12
WARM_UP = 3
"""Steps that are not counted: processes start and fill their queues."""


@dataclass
class RanksRow:
    """A training run."""

    shards: str
    worker_processes: int
    steps: int
    speed: float
    """Micro-batches per CPU second of all processes, start-up included, over that of the run without processes."""
    data_wait: float
    """Share of the time of a step that the slowest rank waited for its loader, mean over the steps."""
    data_wait_p50: float
    data_wait_p95: float


def measure(clips: Clips, work_dir: Path, image_size: int, processes: list[int], say: Say) -> list[RanksRow]:
    """One run for each number of processes and kind of shards.

    Raises:
        InputError: a run fails; its output is in the sentence.
    """
    tokenizer = work_dir / "tokenizer.json"
    tokenizer_of(model_of(image_size)).save(tokenizer)
    made = []
    for kind, folder in (("originals", clips.shards), ("transcoded", clips.transcoded_shards)):
        alone = 0.0
        for number in processes:
            say(f"training on {RANKS} ranks from {kind}, {number} worker processes each")
            cpu, waits = _train(folder, tokenizer, work_dir / "run", image_size, number)
            speed = STEPS * RANKS / cpu
            alone = alone or speed
            shares = [float(x) for x in (np.mean(waits), *np.percentile(waits, [50, 95]))]
            made.append(RanksRow(kind, number, STEPS, round(speed / alone, 3), *(round(x, 4) for x in shares)))
    return made


def _train(folder: Path, tokenizer: Path, run: Path, image_size: int, processes: int) -> tuple[float, list[float]]:
    """CPU seconds of the run, and the share of each counted step that went to waiting."""
    shutil.rmtree(run, ignore_errors=True)
    values = [
        "stage=sft_offline", "model=tiny", "precision=fp32", "logging=disabled", f"model.vision.image_size={image_size}",
        "model.vision.patch_size=14", f"data.tokenizer={tokenizer.resolve()}", f"data.root={folder.parent.resolve()}",
        f"data.datasets=[{{name: video, path: {folder.name}, modality: video}}]",
        "data.mixture={text: 0.0, image: 0.0, video: 1.0}",
        f"data.global_data_workers={READERS}", f"data.worker_processes={processes}", "data.shuffle_buffer=0",
        "data.packing_buffer=1", "data.samples_per_pack=1", "stage.sequence_length=512", f"train.steps={STEPS}",
        f"train.global_batch_size={RANKS}", "train.save_every=0", "train.eval_every=0", f"run_dir={run}",
    ]  # fmt: skip
    command = [sys.executable, "-m", "moss_train.cli.main", "train", "--nproc-per-node", str(RANKS), *values]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    before = cpu_seconds()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise InputError(f"the training run of the measurement failed: {' '.join(done.stderr.split())[-500:]}")
    cpu = cpu_seconds() - before
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "data_seconds" in line][WARM_UP:]
    shutil.rmtree(run)
    return cpu, [line["data_seconds"] / line["seconds"] for line in steps]
