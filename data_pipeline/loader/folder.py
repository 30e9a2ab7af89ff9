"""The folder of a dataset: where it is, whether it is whole, and which shards it holds."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from megatron.energon.epathlib import EPath
from megatron.energon.flavors.webdataset.metadata import get_info_shard_files

from data_pipeline.shards.info import check_sizes
from data_pipeline.shards.writer import SUMMARY
from data_pipeline.storage.address import Address, is_remote, join
from data_pipeline.storage.files import RemotePath
from data_pipeline.storage.patience import Patience, StorageSettings
from model.errors import InputError


def open_folder(path: str, root: str, field: str, storage: StorageSettings | None = None) -> tuple[EPath, str]:
    """Energon's path of a dataset folder, and a digest that is the same wherever the same shards lie.

    Args:
        path: of the configuration: a local one, relative to `root`, or an address. `root` may itself be an address.
        field: name of `path` in messages.

    Raises:
        InputError: the folder does not exist, has no index, or has shards of another size than were written.
        StorageError: the store of a remote folder cannot be reached.
    """
    if is_remote(path) or is_remote(root):
        folder: EPath = _remote(path, root, storage)
        _check_remote(folder, field)
    else:
        folder = EPath(Path(root) / path)
        _check_local(Path(root) / path, field)
    return folder, _digest(folder)


def _remote(path: str, root: str, storage: StorageSettings | None) -> RemotePath:
    return RemotePath(Address.parse(path if is_remote(path) else join(root, path)), Patience.of(storage))


def _check_local(path: Path, field: str) -> None:
    if not path.is_dir():
        raise InputError(f"{field}: the folder {path} does not exist; write it with `moss data prepare`")
    if not (path / ".nv-meta" / "dataset.yaml").is_file():
        raise InputError(f"{field}: {path} has no index; write it with `moss data prepare`")
    if (path / SUMMARY).is_file():  # shards made by other tools have none
        check_sizes(path)


def _check_remote(folder: RemotePath, field: str) -> None:
    if not (folder / ".nv-meta" / ".info.json").is_file():
        raise InputError(
            f"{field}: {folder} does not exist or has no index; write the folder with `moss data prepare` and copy all of it "
            "there, with .nv-meta"
        )
    summary = folder / SUMMARY
    if summary.is_file():  # each shard's size is compared when it is opened: there may be thousands
        try:
            folder.expect_sizes(json.loads(summary.read_bytes()).get("shard_bytes", {}))
        except (AttributeError, ValueError) as error:
            raise InputError(f"{summary} is damaged ({error}); copy the folder there again") from None


def _digest(folder: EPath) -> str:
    # `moss data prepare` makes the first of the bytes of all shards; the second lists shards and samples of each
    for name in ("index.uuid", ".info.json"):
        file = folder / ".nv-meta" / name
        if file.is_file():
            return hashlib.sha256(file.read_bytes()).hexdigest()[:32]
    raise InputError(f"{folder} has no index; write it with `moss data prepare`")


def shard_sizes(path: str, root: str, storage: StorageSettings | None = None) -> dict[str, int]:
    """Bytes of every shard of a dataset folder by its name, for a run's manifest.

    Raises:
        InputError: a remote folder does not exist, has no index or a damaged summary.
        StorageError: the store of a remote folder cannot be reached.
    """
    if not is_remote(path) and not is_remote(root):
        return {tar.name: tar.stat().st_size for tar in sorted((Path(root) / path).glob("**/*.tar"))}
    folder = _remote(path, root, storage)
    _check_remote(folder, path)
    summary = folder / SUMMARY
    if summary.is_file() and (sizes := json.loads(summary.read_bytes()).get("shard_bytes")):
        return dict(sizes)
    names = get_info_shard_files(folder)
    return {name: (folder / name).size() for name in names}
