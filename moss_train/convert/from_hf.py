"""A folder in the Hugging Face layout as the first checkpoint of a run, written by any layout."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from model.errors import InputError
from moss_train.checkpoint.description import newest_checkpoint

_STAGE_FIELDS = ("frames", "template")


def check_target(run: Path) -> None:
    """Refuses a run folder that already has a checkpoint.

    Raises:
        InputError: it has one, or it is a file.
    """
    if run.exists() and not run.is_dir():
        raise InputError(f"{run} is a file; choose a folder")
    if newest_checkpoint(run) is not None:
        raise InputError(f"{run} already holds a checkpoint; choose a new run folder")


def stage_values(section: dict[str, Any]) -> dict[str, Any]:
    """The stage as a checkpoint describes it, from the `moss_train` section of config.json."""
    known = {name: section[name] for name in _STAGE_FIELDS if name in section}
    return ({"name": section["stage"]} if section.get("stage") else {}) | known


def hf_to_checkpoint(folder: Path, run: Path, *, tensor: int, pipeline: int) -> str:
    """Loads the folder in a layout of this world and saves weights only; every rank calls it.

    Returns:
        The checkpoint folder.

    Raises:
        InputError: a bad folder, or sizes that do not fit the model.
    """
    from model.conversion.folder import read_hf_folder
    from moss_train.checkpoint.load import load_model_weights
    from moss_train.checkpoint.save import save_model_only
    from moss_train.config.schema import ParallelConfig
    from moss_train.convert.solo import bare_model

    config, tensors, section = read_hf_folder(folder)
    dtype = tensors["language_model.model.norm.weight"].dtype if "language_model.model.norm.weight" in tensors else None
    if dtype is None:
        raise InputError(f"{folder} lacks the tensor language_model.model.norm.weight; it holds another model")
    with bare_model(config, dtype, ParallelConfig(tensor=tensor, pipeline=pipeline)) as model:
        load_model_weights(folder, model.chunks, model.vision)
        written = save_model_only(run, model.chunks, model.vision, config, stage=stage_values(section))
    return str(written)


def copy_tokenizer(folder: Path, run: Path) -> None:
    """Puts the folder's tokenizer.json, if it has one, where a run keeps its own."""
    source = folder / "tokenizer.json"
    if source.is_file():
        partial = run / ".tokenizer.json"
        shutil.copyfile(source, partial)
        os.replace(partial, run / "tokenizer.json")


def main(arguments: list[str]) -> int:
    """`RESULT FOLDER RUN TENSOR PIPELINE`: one rank of the conversion."""
    from moss_train import platform

    platform.install()
    from moss_train.parallel.spawn import answer

    result, folder, run, tensor, pipeline = arguments
    return answer(
        Path(result), lambda: hf_to_checkpoint(Path(folder), Path(run), tensor=int(tensor), pipeline=int(pipeline))
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
