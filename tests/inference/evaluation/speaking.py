"""Small random checkpoints whose answers are letters, and differ with what is shown."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.inference.checkpoints import random_tensors, tiny_config, tiny_tokenizer, write_checkpoint


def speaking_tensors() -> dict[str, torch.Tensor]:
    """Random weights that say letters: rows of the head for other tokens are small, so that theirs are never the best scores."""
    tensors, tokenizer = random_tensors(tiny_config(), seed=8), tiny_tokenizer()
    silent = [i for i in range(tokenizer.vocab_size) if not tokenizer.decode([i]).replace(" ", "").isalpha() or i < 94]
    tensors["language_model.lm_head.weight"][silent] *= 0.01
    return tensors


def write_speaking(folder: Path) -> Path:
    """The checkpoint with its tokenizer."""
    return write_checkpoint(folder, tiny_config(), tokenizer=tiny_tokenizer(), tensors=speaking_tensors())
