"""Which checks there are and in which layouts they run, by number of ranks. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from model.errors import InputError

UPDATES, SAVED_AT = 4, 2
"""Of a run, and after how many of them it is saved."""

CHAINS: dict[int, tuple[str, ...]] = {
    1: ("one",),
    2: ("dp2", "tp2.sp", "pp2.vpp2", "cp2"),
    4: ("tp2.sp.dp2", "tp2.sp.pp2", "pp2.cp2", "tp4.sp"),
    8: ("tp2.sp.pp2.dp2", "tp4.sp.pp2", "tp2.sp.pp2.cp2", "pp4.dp2"),
}
"""Every layout resumes itself, and continues what the one before it saved; at last a single rank does."""

GOLDEN: dict[int, tuple[str, ...]] = {1: ("one",), 2: ("tp2.sp", "pp2", "cp2"), 4: ("tp2.sp.pp2",), 8: ("tp2.sp.pp2.cp2",)}
"""Where recorded quantities are replayed: small, since the recorded model is."""


@dataclass(frozen=True)
class Kind:
    """What is trained."""

    modules: str
    """torch | auto, as in `moss verify layouts`."""
    dtype: str

    @property
    def name(self) -> str:
        return f"{self.modules} {self.dtype}"


KINDS = {kind.modules: kind for kind in (Kind("torch", "fp32"), Kind("auto", "bf16"))}


@dataclass(frozen=True)
class Job:
    """What the processes do one after the other; one that ends them costs no other."""

    work: str
    """chain | guards | golden | alone"""
    kind: str = ""
    """A key of `KINDS`; golden has none."""


def jobs_of(kinds: list[str], golden: bool) -> list[Job]:
    """All jobs, those on a single rank last."""
    jobs = [Job("chain", kind) for kind in kinds] + [Job("guards", kind) for kind in kinds]
    return [*jobs, *[Job("golden")] * golden, *(Job("alone", kind) for kind in kinds), *[Job("golden alone")] * golden]


def check_ranks(ranks: int) -> int:
    """The number of ranks.

    Raises:
        InputError: one for which no layouts are listed.
    """
    if ranks not in CHAINS:
        raise InputError(f"--ranks is {ranks}; use one of {', '.join(map(str, CHAINS))}")
    return ranks
