"""Whether what training reads first, tokenizer and shards, can be read from every node. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from moss_train.config.schema import RunConfig
from moss_train.preflight.findings import BAD, OK, Finding, Verdict

_BYTES = 4096


def read_data(config: RunConfig) -> dict[str, str]:
    """By path: "" where it can be read, else what the system says. Addresses of stores are left to training itself."""
    return {str(path): _trouble(path) for path in dict.fromkeys(_paths(config))}


def _paths(config: RunConfig) -> Iterator[Path]:
    data = config.data
    if "://" in data.root:
        return
    yield Path(data.root) / data.tokenizer
    for dataset in [*data.datasets, *data.validation]:
        wanted = dataset.weight > 0 and (not data.mixture or data.mixture.get(dataset.modality, 0) > 0)
        if wanted and "://" not in dataset.path:
            yield Path(data.root) / dataset.path


def _trouble(path: Path) -> str:
    try:
        if not path.is_dir():
            _read(path)
            return ""
        shard = next(path.glob("**/*.tar"), None)
        if shard is None:
            return "holds no shards"
        _read(shard)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _read(path: Path) -> None:
    with path.open("rb") as file:
        file.read(_BYTES)


def judge_data(verdict: Verdict, read: Mapping[int, Mapping[str, str]]) -> None:
    """What some nodes can read all must; what none can is the configuration's fault.

    Args:
        read: by node, what `read_data` found.
    """
    for path in dict.fromkeys(path for found in read.values() for path in found):
        troubles = {node: found[path] for node, found in read.items() if found.get(path)}
        if len(troubles) == len(read):
            why = sorted(set(troubles.values()))[0]
            verdict.faults.append(f"no node can read {path}: {why}; correct data.root, or write it with `moss data prepare`")
            continue
        for node, trouble in troubles.items():
            why = f"{path} cannot be read: {trouble}; mount it as on the other nodes, or leave the node out"
            verdict.add(node, Finding("data", BAD, trouble, why))
    for node, found in read.items():
        if found and not any(found.values()):
            verdict.add(node, Finding("data", OK, f"{len(found)} paths"))
