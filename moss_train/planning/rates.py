"""What work a GPU gets through in a second, by kind: the table that predicted times come from, and how it is read and written.

`rates.json` beside this file has a row for each GPU. Its numbers are shares of what the vendor states, so that cards of one
architecture can be compared, and seconds of the host. A row is written by `moss plan calibrate` from the steps of a
`moss bench train`; one that comes from another card, or from nothing, says `measured: false`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import InputError

TABLE = Path(__file__).with_name("rates.json")


@dataclass(frozen=True)
class Rates:
    """Shares of the bf16 peak for operations (fp8's too, so they may go beyond 1), of the bandwidth for passes over memory."""

    decoder: float
    """Self layers of Transformer Engine's modules in bf16, forward and backward together."""
    decoder_fp8: float
    """The same with their products in fp8."""
    decoder_torch: float
    """The same of torch's modules in bf16."""
    cross: float
    """Cross layers in bf16; fp8 gains them what it gains self layers."""
    head: float
    """The head's products; what is read and written for each logit counts apart."""
    tower_forward: float
    """Fused layers of the tower, in bf16."""
    tower_backward: float
    """Their backward pass, counted as twice the forward's operations."""
    tower_fp8_forward: float
    tower_fp8_backward: float
    torch_tower_forward: float
    """Layers of the tower made of torch's modules, in bf16."""
    torch_tower_backward: float
    torch_tower_fp8: float
    """Both passes of such layers in fp8, in units of their bf16 rates."""
    tower_attention: float
    """Seconds of an operation of attention in a fused layer's forward pass, in units of those of its products: what a keep
    level saves depends on it."""
    memory: float
    """Element-wise passes: logits, gradients added up."""
    update: float
    """The optimizer's passes over gradients, weights and states."""
    host_layer: float
    """Seconds in which the host starts the kernels of one decoder layer, forward and backward: a faster GPU waits."""
    host_micro_batch: float
    """The same for what a micro-batch needs beside its layers."""


NAMES = tuple(spec.name for spec in dataclasses.fields(Rates))


@dataclass(frozen=True)
class Row:
    """A GPU of the table."""

    rates: Rates
    measured: bool
    """Whether steps on this very card are behind the numbers."""
    source: str
    """Where they come from, in words."""
    fitted: tuple[str, ...] = ()
    """Those that the last calibration determined; the others are as they were."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "measured": self.measured,
            "source": self.source,
            "fitted": list(self.fitted),
            "rates": {name: float(f"{value:.5g}") for name, value in vars(self.rates).items()},
        }


def read_table(path: Path = TABLE) -> dict[str, Row]:
    """All rows.

    Raises:
        InputError: a file that is not such a table, naming what is wrong.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"the table of rates {path} cannot be read ({error}); give a file that moss plan calibrate wrote"
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"the table of rates {path} is no JSON object; give one of moss plan calibrate")
    return {gpu: _row(f"{path}: {gpu}", row) for gpu, row in content.items()}


def write_table(rows: Mapping[str, Row], path: Path = TABLE) -> None:
    """Write all rows, whole or not at all."""
    from moss_train.checkpoint.description import write_atomically

    write_atomically(path, json.dumps({gpu: row.to_dict() for gpu, row in sorted(rows.items())}, indent=1) + "\n")


def derived(row: Row, from_gpu: str) -> Row:
    """The row for another card of the same architecture: shares stay, so that what waits for memory follows its bandwidth."""
    return Row(row.rates, False, f"shares of the {from_gpu} ({row.source}); nothing was measured on this card")


def _row(where: str, row: Any) -> Row:
    if not isinstance(row, dict) or not isinstance(row.get("rates"), dict):
        raise InputError(f"{where} has no rates; give a table of moss plan calibrate")
    rates = row["rates"]
    for words, names in (("misses", set(NAMES) - set(rates)), ("has unknown", set(rates) - set(NAMES))):
        if names:
            raise InputError(f"{where} {words} {', '.join(sorted(names))}; calibrate it again")
    for name, value in rates.items():
        if not isinstance(value, int | float) or not 0 < value < math.inf:
            raise InputError(f"{where}: {name} is {value!r}; it must be a number above 0")
    return Row(Rates(**rates), bool(row.get("measured")), str(row.get("source", "")), tuple(row.get("fitted", ())))
