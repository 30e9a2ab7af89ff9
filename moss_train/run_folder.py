"""The folder of a run: what was asked, what ran, what came out.

`config.yaml` (resolved, itself a valid input), `versions.json`, `data.json` (what the datasets held), `tokenizer.json`,
`metrics.jsonl`, `events.jsonl` (starts, checkpoints, ends), `report.html`, `quarantine.jsonl` (samples left out),
`samples_*.jsonl` (keys of every step, if asked for), `checkpoints/`, `latest`,
`best` (if the run looks for it), `profile/` (if asked for).
"""

from __future__ import annotations

import json
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import yaml

from data_pipeline.loader.folder import shard_sizes
from model.errors import InputError
from moss_train.checkpoint.description import newest_checkpoint, write_atomically
from moss_train.config.compose import save_config
from moss_train.config.schema import DatasetConfig, RunConfig

_PACKAGES = ("moss-train", "torch", "megatron-core", "megatron-energon", "transformer-engine", "flash-attn", "av", "numpy")


class RunFolder:
    """Paths inside a run folder; `prepare` makes it and is called by one rank."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.metrics = self.path / "metrics.jsonl"
        self.events = self.path / "events.jsonl"
        self.report = self.path / "report.html"
        self.quarantine = self.path / "quarantine.jsonl"
        self.tokenizer = self.path / "tokenizer.json"
        self.wandb = self.path / "wandb"

    @property
    def newest(self) -> Path | None:
        """The newest published checkpoint, if there is one."""
        return newest_checkpoint(self.path)

    def setting(self, group: str, name: str) -> Any:
        """A value of the config that the run folder was last used with; None where it has not been used."""
        try:
            values = yaml.safe_load(self.config.read_text())
            return values[group][name]
        except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
            return None

    def prepare(self, config: RunConfig, tokenizer: Path, world_size: int) -> None:
        """Make the folder and write what describes the run.

        Raises:
            InputError: the folder cannot be made or written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            save_config(config, self.config)
            write_atomically(self.path / "versions.json", json.dumps(versions(world_size), indent=1))
            write_atomically(self.path / "data.json", json.dumps(data_manifest(config), indent=1))
            shutil.copyfile(tokenizer, self.path / ".tokenizer.json")
            (self.path / ".tokenizer.json").replace(self.tokenizer)
        except OSError as error:
            raise InputError(f"run_dir {self.path} cannot be written: {error.strerror or error}; choose another folder") from None


def versions(world_size: int) -> dict[str, Any]:
    """Versions of everything that can change a result."""
    found: dict[str, Any] = {"python": sys.version.split()[0], "machine": platform.platform(), "ranks": world_size}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    found["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    found["cuda"] = torch.version.cuda
    return found


def data_manifest(config: RunConfig) -> dict[str, Any]:
    """Every dataset folder with the names and sizes of its shards; of one that this run does not read none."""
    mixture = config.data.mixture

    def shards(dataset: DatasetConfig) -> list[dict[str, Any]]:
        if dataset.weight <= 0 or (mixture and mixture.get(dataset.modality, 0) <= 0):
            return []  # it may lie on a store that does not answer
        try:
            sizes = shard_sizes(dataset.path, config.data.root, config.data.storage)
        except (InputError, OSError):
            return []
        return [{"file": name, "bytes": size} for name, size in sizes.items()]

    return {
        split: [{"name": d.name, "path": d.path, "modality": d.modality, "shards": shards(d)} for d in datasets]
        for split, datasets in (("train", config.data.datasets), ("validation", config.data.validation))
    }
