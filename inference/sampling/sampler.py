"""What one session brings to sampling, and choosing for the rows of many sessions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from inference.sampling.config import SamplingConfig
from inference.sampling.path import SamplingPath, path_of
from inference.sampling.rules import BANNED, SEEN, SILENCED, Rows, choose, pack
from model.errors import InputError

_PLAIN = pack(SamplingConfig(), 0, None)


@dataclass(frozen=True)
class SamplerState:
    """All that changes in a sampler, as plain values."""

    accepted: int = 0
    seen: tuple[int, ...] = ()


class Sampler:
    """Rules and state of one session. Choosing changes nothing; `accept` does.

    Args:
        config: how to choose.
        banned: ids that are never chosen.
        silence_id: the silence token, for the threshold and for `silenced`; None where there is none.
        silenced: ids that become silence when they are chosen.

    Attributes:
        accepted: tokens accepted so far; with the seed it determines the next random number.
        version: changes whenever the flags of a token do.

    Raises:
        InputError: `silenced` without a silence token.
    """

    def __init__(
        self,
        config: SamplingConfig,
        *,
        banned: Iterable[int] = (),
        silence_id: int | None = None,
        silenced: Iterable[int] = (),
    ) -> None:
        self.config, self.silence_id = config, silence_id
        self.accepted, self.version = 0, 0
        self._banned, self._silenced = frozenset(banned), frozenset(silenced)
        if self._silenced and silence_id is None:
            raise InputError(f"tokens {sorted(self._silenced)} shall become silence, but there is no silence_id; give one")
        self._seen: set[int] = set()
        self._flags: dict[tuple[torch.device, int], torch.Tensor] = {}

    def choose(self, logits: torch.Tensor) -> int:
        """The next token, accepted: a batch of one, read at once.

        Args:
            logits: fp32 [vocab_size] or [1, vocab_size]; left as it is.

        Raises:
            InputError: no token can be chosen.
        """
        token = int(choose_rows(logits.reshape(1, -1), [self]))
        self.accept(token)
        return token

    def accept(self, token: int) -> None:
        """The session goes on with this token, which was chosen for it.

        Raises:
            InputError: the token is -1: none could be chosen.
        """
        if token < 0:
            raise InputError(
                f"no token can be chosen: the model's scores are not finite or every token is banned ({len(self._banned)} are); "
                "check the checkpoint's weights, or use --dtype bf16 or fp32"
            )
        self.accepted += 1
        self.remember([token])

    def remember(self, tokens: Iterable[int]) -> None:
        """Count tokens as said, for the repetition penalty (the prompt counts too)."""
        if self.config.repetition_penalty == 1.0:  # asked for every token: entering a mode of torch costs more than all of this
            return
        new = sorted(set(tokens) - self._seen)
        if new:
            self._mark_seen(new)

    @torch.inference_mode()
    def _mark_seen(self, new: Sequence[int]) -> None:
        self._seen.update(new)
        self.version += 1
        for (_, size), flags in self._flags.items():
            _mark(flags, [token for token in new if 0 <= token < size], SEEN)

    def state(self) -> SamplerState:
        """For continuing later."""
        return SamplerState(self.accepted, tuple(sorted(self._seen)))

    def restore(self, state: SamplerState) -> None:
        """Continue as the sampler whose state this was."""
        self.accepted, self._seen = state.accepted, set(state.seen)
        self._flags.clear()
        self.version += 1

    def flags(self, device: torch.device, size: int) -> torch.Tensor:
        """uint8 [size] on the device: BANNED, SILENCED and SEEN bits of every token. Made once, then kept up to date.

        Ids outside the vocabulary (the image token has no row of the head) are left out.

        Raises:
            InputError: the silence token lies outside.
        """
        found = self._flags.get((device, size))
        if found is None:
            found = self._flags[device, size] = self._make_flags(device, size)
        return found

    @torch.inference_mode()
    def _make_flags(self, device: torch.device, size: int) -> torch.Tensor:
        if self.silence_id is not None and not 0 <= self.silence_id < size:
            raise InputError(
                f"the silence token is {self.silence_id}, the head has {size} rows; use the checkpoint's own tokenizer"
            )
        host = torch.zeros(size, dtype=torch.uint8)
        for bit, members in ((BANNED, self._banned), (SILENCED, self._silenced), (SEEN, self._seen)):
            _mark(host, [token for token in members if 0 <= token < size], bit)
        return _upload(host, device)

    def packed(self, extra: int = 0) -> list[int]:
        """The row of settings and counter that the arithmetic reads, as if `extra` more tokens had been accepted."""
        return pack(self.config, self.accepted + extra, self.silence_id)


@torch.inference_mode()
def choose_rows(
    logits: torch.Tensor,
    samplers: Sequence[Sampler | None],
    *,
    extra: Sequence[int] | None = None,
    following: torch.Tensor | None = None,
) -> torch.Tensor:
    """The next token of many sessions; changes no state and waits for no device.

    Args:
        logits: fp32 [R, vocab_size]; left as they are.
        samplers: one for each row; None takes the best token.
        extra: for each row, tokens (0 or 1) chosen earlier that its sampler has not accepted yet: the row is chosen as if it had.
        following: int64 [R] on the device, those tokens, for the repetition penalty; below 0: none.

    Returns:
        int64 [R] on the device; read them, then `accept` each. -1 where none can be chosen.
    """
    rows = rows_of(samplers, logits.device, logits.shape[1], extra)
    rows.following = following
    return choose(logits, rows, sampling_path(samplers))


def sampling_path(samplers: Sequence[Sampler | None]) -> SamplingPath:
    """The arithmetic that these rows need."""
    return path_of(sampler.config for sampler in samplers if sampler is not None)


def packed_rows(samplers: Sequence[Sampler | None], extra: Sequence[int] | None = None) -> torch.Tensor:
    """int64 [R, COLUMNS] on the host."""
    more = extra or [0] * len(samplers)
    rows = [_PLAIN if sampler is None else sampler.packed(n) for sampler, n in zip(samplers, more, strict=True)]
    return torch.tensor(rows, dtype=torch.int64)


def rows_of(samplers: Sequence[Sampler | None], device: torch.device, size: int, extra: Sequence[int] | None = None) -> Rows:
    """Settings and flags on the device."""
    nothing: torch.Tensor | None = None
    flags = []
    for sampler in samplers:
        if sampler is None:
            nothing = torch.zeros(size, dtype=torch.uint8, device=device) if nothing is None else nothing
            flags.append(nothing)
        else:
            flags.append(sampler.flags(device, size))
    return Rows(_upload(packed_rows(samplers, extra), device), flags[0][None] if len(flags) == 1 else torch.stack(flags))


def _mark(flags: torch.Tensor, tokens: Sequence[int], bit: int) -> None:
    """Set a bit of some tokens."""
    if tokens:
        index = _upload(torch.tensor(tokens, dtype=torch.int64), flags.device)
        flags[index] = flags[index] | bit


def _upload(host: torch.Tensor, device: torch.device) -> torch.Tensor:
    """On the device without waiting for it: pinned memory is copied behind the host's back and kept until that is done."""
    return host if device.type == "cpu" else host.pin_memory().to(device, non_blocking=True)
