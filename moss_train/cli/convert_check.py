"""The verification of a conversion: bytes on both sides, then logits of the training and of the inference model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TOLERANCES = {"fp32": 1e-4}
"""Largest difference of two logits that counts as equal, relative to the largest logit, by the dtype of the arithmetic."""

_ROWS, _FRAMES = 12, 2


def verify_pair(checkpoint: Path, folder: Path, *, logits: bool = True, average: bool = False) -> int:
    """Compares a checkpoint with a folder, prints the outcome and writes it into the certificates that lie beside them.

    Args:
        checkpoint: a checkpoint folder.
        folder: a folder in the Hugging Face layout.
        logits: whether to compare logits too.
        average: take the averages of the checkpoint's trained weights.

    Returns:
        0 where all is equal, else 1.

    Raises:
        InputError: one of them cannot be read, or they are of different models.
    """
    from moss_train.convert.certificate import read_certificate, write_certificate
    from moss_train.convert.compare import compare_tensors

    found = compare_tensors(checkpoint, folder, average=average)
    outcome: dict[str, Any] = {
        "checkpoint": str(checkpoint), "folder": str(folder), "sha256": found.sha256, "tensors": found.tensors,
        "differing": found.differing, "uncertified": found.uncertified, "logits": None,
    }  # fmt: skip
    print(f"{found.tensors - len(found.differing)} of {found.tensors} tensors equal bit by bit, sha256 {found.sha256[:16]}…")
    for label, names in (("differs", found.differing), ("not as certified", found.uncertified)):
        for name in names[:5]:
            print(f"{label}: {name}")
        if len(names) > 5:
            print(f"{label}: {len(names) - 5} more")
    if logits:
        outcome["logits"] = _compare_logits(checkpoint, folder, average)
    outcome["passed"] = found.equal and (not logits or outcome["logits"]["passed"])
    for place in (checkpoint, folder):
        certificate = read_certificate(place)
        if certificate is not None:
            write_certificate(place, certificate | {"verification": outcome})
    return 0 if outcome["passed"] else 1


def _compare_logits(checkpoint: Path, folder: Path, average: bool) -> dict[str, Any]:
    """One prompt with frames through both models in fp32, one layer in memory at a time."""
    from moss_train import platform

    platform.install()
    import torch

    from inference.layerwise import folder_logits
    from moss_train.checkpoint.description import read_description
    from moss_train.convert.logits import checkpoint_logits, closed_gates
    from moss_train.convert.parameters import open_parameters

    description = read_description(checkpoint)
    config = description.config
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, config.text.vocab_size, (_ROWS,), generator=generator).tolist()
    positions = [1 + frame * (_ROWS // 2) for frame in range(_FRAMES)]  # the first row sees no frame
    for position in positions:
        tokens[position] = config.image_token_id
    side = config.vision.image_size
    frames = torch.randint(0, 256, (_FRAMES, config.vision.num_channels, side, side), generator=generator).to(torch.uint8)
    parameters = open_parameters(checkpoint, description, average=average)
    ours = checkpoint_logits(config, parameters, tokens, frames, positions)
    theirs = folder_logits(folder, config, tokens, frames, positions)
    largest = float(theirs.abs().max())
    difference = float((ours - theirs).abs().max())
    relative = difference / largest if largest > 0 else difference
    passed = bool(torch.isfinite(ours).all()) and bool(torch.isfinite(theirs).all()) and relative <= TOLERANCES["fp32"]
    print(
        f"logits of {_ROWS} rows and {_FRAMES} frames: largest {largest:.3g}, difference {difference:.1e} "
        f"(relative {relative:.1e}, tolerance {TOLERANCES['fp32']:g}) {'ok' if passed else 'DIFFERS'}"
    )
    closed = closed_gates(config, parameters)
    if closed:
        print(f"{len(closed)} gates are 0, first {closed[0]}: the logits say nothing of the weights behind them")
    return {
        "rows": _ROWS, "frames": _FRAMES, "dtype": "fp32", "largest": largest, "difference": difference,
        "relative": relative, "tolerance": TOLERANCES["fp32"], "passed": passed,
        "closed_gates": closed,
    }  # fmt: skip
