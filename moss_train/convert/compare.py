"""Whether a checkpoint and a folder in the Hugging Face layout hold the same weights, bit by bit, one block at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from model.conversion.folder import FolderWeights, read_hf_folder, read_json
from model.conversion.stream import check_published, cut, published_blocks, published_infos
from model.conversion.table import all_rules
from model.conversion.tensor_file import scratch
from model.errors import InputError
from moss_train.checkpoint.description import first_difference, read_description
from moss_train.convert.certificate import Hashes, digest_of, read_certificate
from moss_train.convert.parameters import open_parameters
from moss_train.convert.progress import ByteProgress


@dataclass
class Comparison:
    """Outcome for one checkpoint and one folder."""

    tensors: int
    differing: list[str]
    """Published names whose bytes or dtype differ between the two."""
    uncertified: list[str]
    """`FILE: name` of tensors whose bytes are not those that a certificate beside them names."""
    sha256: str
    """One hash over the tensors of the checkpoint, as published."""

    @property
    def equal(self) -> bool:
        return not self.differing and not self.uncertified


def compare_tensors(checkpoint: Path, folder: Path, *, average: bool = False) -> Comparison:
    """Hashes every tensor on both sides and holds the hashes against each other and against the certificates.

    Args:
        checkpoint: a checkpoint folder.
        folder: a folder in the Hugging Face layout.
        average: take the averages of the checkpoint's trained weights.

    Raises:
        InputError: one of them cannot be read, or they are of different models.
    """
    description = read_description(checkpoint)
    config, weights, _ = read_hf_folder(folder)
    if "merge_mode" not in read_json(folder / "config.json")["vision_config"]:
        # The plain format does not say how frames are pooled, and no tensor depends on it.
        pooling = {name: getattr(description.config.vision, name) for name in ("pool_mode", "pool_stride")}
        config = dataclasses.replace(config, vision=dataclasses.replace(config.vision, **pooling))
    difference = first_difference(description.config, config)
    if difference is not None:
        raise InputError(f"{checkpoint} and {folder} are of different models: {difference}; compare those of one model")
    parameters = open_parameters(checkpoint, description, average=average)
    infos = published_infos(parameters, config)
    check_published(set(weights), {name: weights.info(name) for name in weights}, config)
    ours, theirs = Hashes(), Hashes()
    total = sum(info.num_bytes + weights.info(name).num_bytes for name, info in infos.items())
    with ByteProgress("verify", total) as progress:
        for rule in all_rules(config):
            for part, name in enumerate(rule.hf):
                for hashes, blocks in (
                    (ours, published_blocks(rule, part, parameters, config)),
                    (theirs, folder_blocks(weights, name)),
                ):
                    for block in hashes.passing(name, blocks):
                        progress.advance(block.numel() * block.element_size())
    here, there = ours.digests(), theirs.digests()
    differing = [name for name in infos if here[name] != there[name] or infos[name].dtype != weights.info(name).dtype]
    uncertified = [f"{place}: {name}" for place, found in ((checkpoint, here), (folder, there)) for name in _broken(place, found)]
    return Comparison(len(infos), differing, uncertified, digest_of(here))


def folder_blocks(weights: FolderWeights, name: str) -> Iterator[Tensor]:
    """The rows of a published tensor in blocks of at most `BLOCK_BYTES`."""
    info = weights.info(name)
    for first, count in cut(0, info.shape[0], info.row_bytes):
        block = scratch((count, *info.shape[1:]), info.dtype)
        weights.read_rows(name, first, block)
        yield block


def _broken(place: Path, hashes: dict[str, str]) -> list[str]:
    certificate = read_certificate(place)
    if certificate is None:
        return []
    said = certificate.get("hashes")
    if not isinstance(said, dict):
        raise InputError(f"{place / 'certificate.json'} has no hashes; delete it or restore it")
    return [name for name, value in hashes.items() if said.get(name) != value]
