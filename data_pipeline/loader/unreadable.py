"""Reading shards of which parts are damaged: every damaged sample by its name, and all others."""

from __future__ import annotations

import errno
import sqlite3
from bisect import bisect_right
from typing import Any

from megatron.energon.flavors.webdataset.config import INDEX_SQLITE_FILENAME, MAIN_FOLDER_NAME
from megatron.energon.flavors.webdataset.indexing import SqliteIndexReader
from megatron.energon.flavors.webdataset.itar_reader import ShardInfosITarReader
from megatron.energon.flavors.webdataset.metadata import get_info_shard_files
from megatron.energon.flavors.webdataset.sample_loader import WebdatasetSampleLoaderDataset
from megatron.energon.flavors.webdataset.structs import FilteredSample
from megatron.energon.source_info import SourceInfo

from data_pipeline.storage.errors import StorageError
from model.errors import InputError

UNREADABLE = "__unreadable__"
"""Member of a sample that cannot be read: the reason."""


def guard_reading(dataset: Any) -> None:
    """Make a dataset of shards give its damaged samples as such, where Energon's reader would end the whole run.

    Args:
        dataset: what `CrudeWebdataset.build` gave.
    """
    while not isinstance(dataset, WebdatasetSampleLoaderDataset):
        dataset = dataset.dataset
    dataset.join_readers = [_GuardedReader(reader) for reader in dataset.join_readers]  # type: ignore[misc]


class _GuardedReader:
    """Energon's reader by place in the shards; samples are read one by one, so that damage to one spares the next."""

    def __init__(self, reader: ShardInfosITarReader) -> None:
        self._reader = reader
        self._keys: SqliteIndexReader | None = None

    def __getitem__(self, index: int) -> FilteredSample | None:
        """
        Raises:
            StorageError: the store of the shards cannot be reached.
            OSError: a shard cannot be opened or read at all.
        """
        try:
            sample: FilteredSample | None = self._reader[index]
            if sample is not None:
                sample["__key__"].encode()
        except StorageError:
            raise
        except OSError as error:
            if error.errno != errno.EIO:  # a bad place on a disk; all others are no matter of one sample
                raise
            return self._damaged(index, error)
        except Exception as error:  # whatever the tar reader makes of damaged bytes
            return self._damaged(index, error)
        for tar in self._reader.itar_files_cache.values():
            tar.members.clear()  # tarfile's list of all it ever read would grow as long as the file is open
        return sample

    def _damaged(self, index: int, error: Exception) -> FilteredSample:
        self._reader.close()  # nothing that the damage left in an open file reaches another sample
        reader = self._reader
        number = bisect_right(reader.shard_count_cumsum, index) - 1
        shard = reader.shard_infos[number].name
        key = self._key(shard, index - reader.shard_count_cumsum[number])
        reason = f"its name in {shard} is no UTF-8" if isinstance(error, UnicodeError) else f"{error or type(error).__name__}"
        source = SourceInfo(dataset_path=reader.base_path, index=index, shard_name=shard, file_names=())
        return FilteredSample(
            __key__=key,
            __shard__=shard,
            __restore_key__=("Webdataset", index),
            __sources__=(source,),
            **{UNREADABLE: f"the shard is damaged at this sample: {reason}"},  # type: ignore[typeddict-item]
        )

    def _key(self, shard: str, place: int) -> str:
        """The name of a sample that cannot be read, from the folder's index."""
        folder = self._reader.base_path
        try:
            if self._keys is None:
                self._keys = SqliteIndexReader(folder / MAIN_FOLDER_NAME / INDEX_SQLITE_FILENAME)
            number = get_info_shard_files(folder).index(shard)
            row = self._keys.db.select_one(
                "SELECT sample_key FROM samples WHERE tar_file_id = ? AND sample_index = ?", (number, place)
            )
            return str(row[0])
        except (AssertionError, sqlite3.Error, ValueError, TypeError) as error:
            raise InputError(
                f"{folder} has a damaged sample in {shard}, whose name is not in the index "
                f"{MAIN_FOLDER_NAME}/{INDEX_SQLITE_FILENAME} ({error}); write the folder again with `moss data prepare`"
            ) from None
