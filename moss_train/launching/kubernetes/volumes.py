"""Storage of the pods: `launcher.kubernetes.volumes`, and what has to lie on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from model.errors import InputError
from moss_train.config.schema import RunConfig
from moss_train.launching.kubernetes.names import check_object_name

SHARED_MEMORY = "/dev/shm"
_FIELD = "launcher.kubernetes.volumes"


@dataclass(frozen=True)
class Volume:
    """A volume and its place in the pod."""

    inside: str
    source: dict[str, Any]
    """As a pod's volume says it."""
    kind: str
    """claim | host | empty"""


def volumes_of(config: RunConfig, taken: Sequence[str]) -> list[Volume]:
    """The volumes in their order.

    Args:
        taken: places inside that are used already.

    Raises:
        InputError: one that cannot be read, two at one place, or a run folder or cache that lies on none that keeps it.
    """
    found: list[Volume] = []
    for text in config.launcher.kubernetes.volumes:
        volume = _volume(text)
        if volume.inside in (*taken, *(other.inside for other in found)):
            raise InputError(f"{_FIELD} has {text!r}, but {volume.inside} is taken; choose another place inside")
        found.append(volume)
    run_dir, cache = PurePosixPath(config.run_dir), config.launcher.cache.folder
    kept = [volume for volume in found if volume.kind != "empty"]
    if ".." in run_dir.parts or not any(run_dir.is_relative_to(volume.inside) for volume in kept):
        raise InputError(
            f"run_dir is {config.run_dir}, which would be gone with its pod; put it below a volume that all pods share, such as "
            f"{_FIELD}=['claim:NAME:/data'] run_dir=/data/runs/NAME"
        )
    disks = [volume for volume in found if volume.kind != "claim"]
    if cache and not any(PurePosixPath(cache).is_relative_to(volume.inside) for volume in disks):
        raise InputError(
            f"launcher.cache.folder is {cache}, on no disk of the node; add 'host:{cache}:{cache}' or 'empty:{cache}' to {_FIELD}"
        )
    return found


def _volume(text: str) -> Volume:
    kind, _, rest = text.partition(":")
    name, _, inside = rest.rpartition(":")
    if not inside.startswith("/") or inside == "/" or (kind == "host" and not name.startswith("/")):
        raise _unreadable(text)
    place = str(PurePosixPath(inside))
    if kind == "claim" and name:
        return Volume(place, {"persistentVolumeClaim": {"claimName": check_object_name(_FIELD, name)}}, kind)
    if kind == "host":
        return Volume(place, {"hostPath": {"path": name, "type": "DirectoryOrCreate"}}, kind)
    if kind == "empty" and not name:
        return Volume(place, {"emptyDir": {}}, kind)
    raise _unreadable(text)


def _unreadable(text: str) -> InputError:
    return InputError(f"{_FIELD} has {text!r}; write claim:NAME:/inside, host:/path:/inside or empty:/inside")
