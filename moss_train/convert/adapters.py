"""The adapters of a checkpoint alone, as a folder in the layout of the PEFT library."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from pathlib import Path

from safetensors.torch import save_file

from model.errors import InputError
from model.lora.published import peft_config, peft_tensors, published_factors
from model.lora.spec import LoraSpec
from moss_train.checkpoint.adapters import read_adapters
from moss_train.checkpoint.description import find_checkpoint, read_description
from moss_train.convert.termination import termination_cleans_up


@termination_cleans_up()
def checkpoint_to_adapters(source: Path, out: Path, base: str | None = None) -> tuple[Path, Path]:
    """Writes `adapter_config.json` and `adapter_model.safetensors`; no process group is needed.

    Args:
        source: run folder (its newest checkpoint) or checkpoint folder.
        out: the folder to write, new or empty.
        base: where the weights without adapters are.

    Returns:
        The checkpoint that was read and the folder that was written.

    Raises:
        InputError: a checkpoint without adapters, or with other trained weights beside them; a target that is not empty.
    """
    checkpoint = find_checkpoint(source)
    description = read_description(checkpoint)
    if description.lora is None:
        raise InputError(f"{checkpoint} holds no adapters; convert it without --adapters")
    spec = LoraSpec.from_dict(description.lora)
    if spec.train_also:
        raise InputError(
            f"{checkpoint} trained {', '.join(spec.train_also)} beside its adapters (lora.train_also), which a folder of "
            "adapters cannot hold; convert it without --adapters"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is not an empty folder; choose a new one")
    published = published_factors(read_adapters(checkpoint), description.config)
    out.parent.mkdir(parents=True, exist_ok=True)
    written = out.with_name(f".{out.name}.{uuid.uuid4().hex}.tmp")
    written.mkdir()
    try:
        save_file(peft_tensors(published), str(written / "adapter_model.safetensors"), metadata={"format": "pt"})
        content = json.dumps(peft_config(spec, published, base), indent=2) + "\n"
        (written / "adapter_config.json").write_text(content, encoding="utf-8")
        if out.exists():
            out.rmdir()
        os.replace(written, out)
    finally:
        shutil.rmtree(written, ignore_errors=True)
    return checkpoint, out
