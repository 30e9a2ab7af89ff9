"""Where samples begin in remote shards."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
from megatron.energon.epathlib import EPath
from megatron.energon.flavors.webdataset.itar import ITAR_SUFFIX
from megatron.energon.flavors.webdataset.sample_loader import WebdatasetSampleLoaderDataset

_KEPT = 256


class RemoteOffsets:
    """Stands in for Energon's look-up, which opens `.tar.idx` files by their names and so only local ones."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, np.ndarray[Any, np.dtype[np.uint64]]] = OrderedDict()

    def get_itar_byte_offset(self, tar_file: EPath, sample_offset: int = 0) -> tuple[int, int]:
        """Begin and bytes of a sample of a shard.

        Raises:
            IndexError: the index of the shard ends before it.
            StorageError: the index cannot be read.
        """
        begins = self._begins(tar_file)
        return int(begins[sample_offset]), int(begins[sample_offset + 1] - begins[sample_offset])

    def content(self, tar_file: EPath) -> bytes:
        """The index of a shard."""
        return tar_file.with_suffix(ITAR_SUFFIX).read_bytes()  # type: ignore[no-any-return]

    def knows(self, tar_file: EPath) -> bool:
        """Whether the index of a shard was read lately."""
        return str(tar_file) in self._known

    def _begins(self, tar_file: EPath) -> np.ndarray[Any, np.dtype[np.uint64]]:
        name = str(tar_file)
        if name not in self._known:
            content = self.content(tar_file)
            self._known[name] = np.frombuffer(content[: len(content) // 8 * 8], dtype="<u8")  # [samples + 1]
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
        self._known.move_to_end(name)
        return self._known[name]


def look_up_remotely(dataset: Any) -> None:
    """Make a dataset of shards find its samples in remote shards.

    Args:
        dataset: what `CrudeWebdataset.build` gave.
    """
    while not isinstance(dataset, WebdatasetSampleLoaderDataset):
        dataset = dataset.dataset
    for reader in dataset.join_readers:
        reader.cached_offset_reader = RemoteOffsets()
