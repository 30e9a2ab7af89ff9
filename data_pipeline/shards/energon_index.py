"""Energon's metadata of a dataset folder: index, counts, one split, and a dataset of raw samples."""

from __future__ import annotations

import contextlib
import io
import uuid
from collections.abc import Mapping
from pathlib import Path

from megatron.energon.flavors import BaseWebdatasetFactory

from model.errors import InputError

SPLIT = "train"
"""The only split: a held-out set is a folder of its own."""

_DATASET_YAML = """\
__module__: megatron.energon
__class__: CrudeWebdataset
"""


def index_shards(folder: Path, shards: Mapping[str, str]) -> None:
    """Write `.nv-meta/` for the given shards (name -> digest of its bytes).

    Raises:
        InputError: Energon refuses the shards.
    """
    talk = io.StringIO()
    try:
        with contextlib.redirect_stdout(talk):
            BaseWebdatasetFactory.prepare_dataset(
                folder, list(shards), split_parts_patterns=[(SPLIT, ".*")], shuffle_seed=None, workers=1
            )
    except SystemExit:
        raise InputError(f"{folder} cannot be indexed: {talk.getvalue().strip()}") from None
    meta = folder / ".nv-meta"
    (meta / "dataset.yaml").write_text(_DATASET_YAML)
    # Energon draws a random identity; one made of the bytes keeps the folder reproducible
    (meta / "index.uuid").write_text(str(uuid.uuid5(uuid.NAMESPACE_OID, " ".join(shards.values()))))
