"""What is compared: pairs of ways to train the same model on the same data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from model.errors import InputError
from moss_train.bench.subject import OPTIMIZERS, PRECISIONS

SLOW_SECOND = "optimizer.beta2=0.98"
"""Of both sides of `states`: moments in bf16 need it, and what is compared is how states are stored."""
SMALL = ("model=small",)
WIDE = (
    "model=11b", "model.text.num_hidden_layers=4", "model.text.cross_attention_layers=[1,3]", "model.text.vocab_size=8192",
    "model.vision.num_hidden_layers=3", "model.vision.num_global_layers=1", "model.vision.intermediate_layers_indices=[0,1]",
)  # fmt: skip
"""11B widths at the depth of four decoder and four tower layers, and 8,192 words of which the data use 31."""
SMALL_SAMPLES = ((64, 4), (96, 6), (96, 0))
WIDE_SAMPLES = ((512, 4), (512, 4))
"""(rows, frames) of the samples of a micro-batch: 256 rows and 10 frames; 1,024 rows and 8 frames."""


@dataclass(frozen=True)
class Way:
    """One way to train."""

    name: str
    overrides: tuple[str, ...]
    """Of a run's config."""
    samples: tuple[tuple[int, int], ...]
    steps: int
    """Unless others are asked for."""
    rate: float
    """Highest learning rate of a cosine with 5 % warm-up."""
    micro_batches: int
    """Of a step: two where sums of gradients in bf16 are part of what is compared, else one: the host limits a small step."""


def _way(
    name: str, model: tuple[str, ...], *overrides: str, steps: int, rate: float, micro_batches: int, wide: bool = False
) -> Way:  # fmt: skip
    base = ("stage=pt2", "run_dir=unused", "stage.gate_init=0.3")
    samples = WIDE_SAMPLES if wide else SMALL_SAMPLES
    return Way(name, (*base, *model, *overrides), samples, steps, rate, micro_batches)


def _wide(name: str, precision: str) -> Way:
    return _way(
        name, WIDE, *PRECISIONS[precision], *OPTIMIZERS["adamw"], SLOW_SECOND, steps=500, rate=2e-4, micro_batches=1, wide=True
    )


WAYS: dict[str, Way] = {
    way.name: way
    for way in (
        _way("fp32_state", SMALL, *PRECISIONS["bf16"], *OPTIMIZERS["adamw"], SLOW_SECOND, steps=2000, rate=2e-3, micro_batches=2),
        _way("compact", SMALL, *PRECISIONS["bf16"], *OPTIMIZERS["compact"], SLOW_SECOND, steps=2000, rate=2e-3, micro_batches=2),
        _way("bf16", SMALL, *PRECISIONS["bf16"], *OPTIMIZERS["adamw"], SLOW_SECOND, steps=500, rate=2e-3, micro_batches=1),
        _way("fp8", SMALL, *PRECISIONS["fp8"], *OPTIMIZERS["adamw"], SLOW_SECOND, steps=500, rate=2e-3, micro_batches=1),
        _wide("bf16_wide", "bf16"),
        _wide("fp8_wide", "fp8"),
    )
}
PAIRS = {"states": ("compact", "fp32_state"), "fp8": ("fp8", "bf16"), "fp8_wide": ("fp8_wide", "bf16_wide")}
"""Name of a comparison -> what is asked about, and what it is held against."""


def ways_of(pairs: Sequence[str]) -> list[Way]:
    """All ways of some pairs, each once.

    Raises:
        InputError: an unknown pair.
    """
    for pair in pairs:
        if pair not in PAIRS:
            raise InputError(f"--pairs has {pair!r}; use some of {', '.join(PAIRS)}")
    return [WAYS[name] for name in dict.fromkeys(name for pair in pairs for name in PAIRS[pair])]


def steps_of(way: Way, asked: int | None) -> int:
    """Steps of a run."""
    return way.steps if asked is None else asked
