"""Reads what W&B keeps of an offline run: a log of protocol-buffer records in a `.wandb` file.

The file begins with 7 bytes (":W&B", a magic number, a version). Blocks of 32 KiB hold pieces of records: 4 bytes of checksum,
2 of length, 1 that tells whether the piece is a whole record (1), its first (2), a middle (3) or its last (4). A file that a
kill cut off ends in the middle of a piece, which is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK = 32768
_HEADER = 7
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def wandb_files(folder: Path) -> list[Path]:
    """The files of all processes that recorded a run, oldest first.

    Args:
        folder: the run folder's `wandb`.
    """
    return sorted(folder.glob("wandb/*run-*/*.wandb"))


def read_records(path: Path) -> Iterator[bytes]:
    """The records of a file, as bytes; ends where the file is cut off."""
    content = path.read_bytes()
    if content[:4] != b":W&B":
        return
    place, parts = _HEADER, b""
    while place + _HEADER <= len(content):
        left = BLOCK - place % BLOCK
        if left < _HEADER:
            place += left  # the end of a block, too short for a piece
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        begin, place = place + _HEADER, place + _HEADER + length
        if kind not in (_WHOLE, _FIRST, _MIDDLE, _LAST) or place > len(content):
            return
        parts = content[begin:place] if kind in (_WHOLE, _FIRST) else parts + content[begin:place]
        if kind in (_WHOLE, _LAST):
            yield parts


def read_history(path: Path) -> tuple[str, list[dict[str, Any]]]:
    """The run's id and its rows by metric name, `_step` among them."""
    from wandb.proto import wandb_internal_pb2

    identity, rows = "", []
    for content in read_records(path):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(content)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            identity = record.run.run_id
        elif kind == "history":
            row = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            rows.append({"_step": record.history.step.num} | row)
    return identity, rows
