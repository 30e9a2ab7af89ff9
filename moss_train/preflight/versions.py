"""What has to be the same on all nodes: interpreter, packages, driver, our own source, the configuration."""

from __future__ import annotations

import hashlib
import platform
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from moss_train.config.compose import to_yaml
from moss_train.config.schema import RunConfig
from moss_train.preflight.gpus import Gpu

_PACKAGES = ("moss-train", "megatron-core", "megatron-energon", "transformer-engine", "flash-attn")
_OURS = ("model", "data_pipeline", "moss_train")


def version_facts(config: RunConfig, gpus: list[Gpu]) -> dict[str, str]:
    """By name, as it stands in sentences."""
    import torch

    facts = {"Python": platform.python_version(), "torch": torch.__version__, "CUDA": str(torch.version.cuda or "none")}
    facts["NCCL"] = _nccl()
    facts["driver"] = gpus[0].fields.get("driver_version", "none") if gpus else "none"
    for name in _PACKAGES:
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            facts[name] = "none"
    facts["source of moss-train"] = source_digest(Path(__file__).resolve().parent.parent.parent)
    facts["configuration"] = _digest(to_yaml(config).encode())
    facts["kernel"] = platform.release()
    facts["GPUs"] = ", ".join(sorted({f"{gpu.model} {gpu.fields.get('memory.total', '?')} MiB" for gpu in gpus})) or "none"
    return facts


def _nccl() -> str:
    import torch

    if torch.version.cuda is None:
        return "none"
    return ".".join(map(str, torch.cuda.nccl.version()))


@lru_cache
def source_digest(folder: Path) -> str:
    """Of all our Python files, names and content."""
    digest = hashlib.sha256()
    for path in sorted(path for package in _OURS for path in (folder / package).rglob("*.py")):
        digest.update(f"{path.relative_to(folder)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
