"""The best token of each row, but for what a session forbids or turns into silence: greedy decoding behind the head."""

from __future__ import annotations

import torch

from inference.kernels.torch_forms import tokens as torch_tokens
from model.kernels.select import Form, choose_form


def best_tokens(
    logits: torch.Tensor, flags: torch.Tensor, silence: torch.Tensor, banned: int, silenced: int, *, form: Form | None = None
) -> torch.Tensor:
    """The first token of the largest score that is not banned.

    Args:
        logits: [R, V], neighbouring tokens side by side; left as they are.
        flags: uint8 [R, V] as `logits`, bits of each token.
        silence: int64 [R], the token that silenced ones become.
        banned: bit of tokens that are never chosen.
        silenced: bit of tokens that become silence when they are chosen.
        form: overrides the choice by device.

    Returns:
        int64 [R]; -1 where a score that is not banned is NaN or +inf, or where every token is banned.
    """
    if choose_form(logits.device, form) == "triton":
        from inference.kernels.triton_forms.tokens import best_tokens as launch

        return launch(logits, flags, silence, banned, silenced)
    return torch_tokens.best_tokens(logits, flags, silence, banned, silenced)
