"""Damage to samples inside finished shards, as disks, copies and other tools do it. The other samples stay where they are."""

from __future__ import annotations

import io
import json
import random
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av

BLOCK = 512


class StoredSample:
    """One sample of a dataset folder, to be damaged in place."""

    def __init__(self, folder: Path, key: str) -> None:
        self.key = key
        for shard in sorted(folder.glob("*.tar")):
            with tarfile.open(shard) as tar:
                members = [m for m in tar if m.name.split(".")[0] == key]
            if members:
                self.shard, self.members = shard, members
                return
        raise AssertionError(f"{folder} has no sample {key}")

    @property
    def offset(self) -> int:
        return self.members[0].offset

    def json(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self._read(self._member(".json")))
        return content

    def change_json(self, values: dict[str, Any]) -> None:
        self._replace(self._member(".json"), json.dumps(values, separators=(",", ":")).encode(), b" ")

    def cut_json(self) -> None:
        member = self._member(".json")
        self._replace(member, self._read(member)[: member.size // 2], b" ")

    def media(self) -> bytes:
        return self._read(self._media())

    def change_media(self, content: bytes) -> None:
        self._replace(self._media(), content, b"\0")

    def rename_media(self) -> None:
        self._rename(self._media(), f"{self.key}.0.lost".encode())

    def rename_all(self, key: bytes) -> None:
        for member in self.members:
            self._rename(member, key + member.name[len(self.key) :].encode())

    def overwrite(self, offset: int, content: bytes) -> None:
        with self.shard.open("r+b") as file:
            file.seek(offset)
            file.write(content)

    def _member(self, ending: str) -> tarfile.TarInfo:
        return next(m for m in self.members if m.name.endswith(ending))

    def _media(self) -> tarfile.TarInfo:
        return next(m for m in self.members if not m.name.endswith(".json"))

    def _read(self, member: tarfile.TarInfo) -> bytes:
        return self.shard.read_bytes()[member.offset_data : member.offset_data + member.size]

    def _replace(self, member: tarfile.TarInfo, content: bytes, filler: bytes) -> None:
        assert len(content) <= member.size, (len(content), member.size)
        self.overwrite(member.offset_data, content.ljust(member.size, filler))

    def _rename(self, member: tarfile.TarInfo, name: bytes) -> None:
        header = bytearray(self.shard.read_bytes()[member.offset : member.offset + BLOCK])
        header[:100] = name.ljust(100, b"\0")
        header[148:156] = b" " * 8
        header[148:156] = f"{sum(header):06o}\0 ".encode()
        self.overwrite(member.offset, bytes(header))


def _header(sample: StoredSample) -> None:
    sample.overwrite(sample.offset, random.Random(sample.key).randbytes(BLOCK))


def _json_types(sample: StoredSample) -> None:
    values = sample.json()
    values["messages"][0]["content"] = 7
    sample.change_json(values)


def _deep_json(sample: StoredSample) -> None:
    member = sample._member(".json")
    sample._replace(member, b"[" * member.size, b"[")


def _markers(sample: StoredSample) -> None:
    values = sample.json()
    for message in values["messages"]:
        message["content"] = message["content"].replace("<|video|>", "", 1).replace("<|image|>", "", 1)
    sample.change_json(values)


def _too_fast(sample: StoredSample) -> None:
    values = sample.json()
    values["media"][0]["fps"] = 99
    sample.change_json(values)


def _no_frames(sample: StoredSample) -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        out.start_encoding()
    sample.change_media(buffer.getvalue())


def _half_decoded(sample: StoredSample) -> None:
    """From its middle on, the picture data are noise."""
    content = bytearray(sample.media())
    start, end = content.find(b"mdat") + 4, content.find(b"moov") - 4
    middle = (start + end) // 2
    content[middle:end] = random.Random(sample.key).randbytes(end - middle)
    sample.change_media(bytes(content))


def _no_media(sample: StoredSample) -> None:
    sample.change_media(b"")


def _bomb(sample: StoredSample) -> None:
    """An image of 40,000 x 40,000 pixels, says its header."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    size = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    sample.change_media(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


DAMAGES: dict[str, tuple[str, Callable[[StoredSample], None]]] = {
    "header": ("read", _header),
    "name": ("read", lambda sample: sample.rename_all(sample.key.encode()[:-1] + b"\xe9")),
    "json": ("read", StoredSample.cut_json),
    "json_types": ("read", _json_types),
    "json_depth": ("read", _deep_json),
    "markers": ("read", _markers),
    "lost_media": ("read", StoredSample.rename_media),
    "too_fast": ("plan", _too_fast),
    "no_frames": ("decode", _no_frames),
    "no_media": ("decode", _no_media),
    "half_decoded": ("decode", _half_decoded),
}
"""What is done to a sample with a video, and the point at which it must be left out."""

IMAGE_DAMAGES = {"bomb": ("decode", _bomb)} | {n: DAMAGES[n] for n in ("header", "json", "markers", "lost_media", "no_media")}

TEXT_DAMAGES = {name: DAMAGES[name] for name in ("header", "name", "json", "json_types", "json_depth")}


def damage(folder: Path, **ways: str) -> dict[str, str]:
    """Damage samples, given as key=way, and say at which point each must be left out."""
    found = {key: StoredSample(folder, key) for key in ways}  # before the first damage, behind which tarfile finds nothing
    chosen = {key: (DAMAGES | IMAGE_DAMAGES)[way] for key, way in ways.items()}
    for key, (_, act) in chosen.items():
        act(found[key])
    return {key: at for key, (at, _) in chosen.items()}


def truncate(folder: Path, key: str) -> None:
    """End the shard in the middle of a sample."""
    sample = StoredSample(folder, key)
    with sample.shard.open("r+b") as file:
        file.truncate(sample.offset + 700)
