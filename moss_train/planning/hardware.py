"""GPUs in nodes, and what they are taken to reach: the assumptions of predicted times.

What a GPU gets through in a second comes from a table (`moss_train.planning.rates`). Here are the bytes that its element-wise
work reads and writes, and what links and networks carry.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from model.errors import InputError
from moss_train.planning.flops import PEAK, Gpu
from moss_train.planning.rates import Rates, Row, read_table

LOGIT_BYTES = 6
"""Read and written for each logit beside the head's products: read for the losses, turned into its gradient in place."""
ADDED_BYTES = {"product": 0, "apart": 4}
"""For each trained weight and micro-batch, where products add to the gradient's buffer themselves, and where a gradient in
bf16 is written first and added apart; reading and writing the buffer comes to both."""
LINK = 0.4
"""Share of the links within a node that collectives reach: 160 to 215 of 450 GB/s between two H100."""
NETWORK = 0.8
"""Share of the network's bandwidth that collectives reach. Assumed."""
GPUS_A_NODE = 8


@dataclass(frozen=True)
class Cluster:
    """Nodes of equal GPUs."""

    gpu: Gpu
    network_gbps: float = 400.0
    """Gigabits a second of the network for each GPU."""
    price: float | None = None
    """US dollars for a GPU-hour."""
    gpus_a_node: int = GPUS_A_NODE
    row: Row | None = None
    """What the GPU reaches; None takes the table's."""

    @classmethod
    def of(cls, gpu: str, network_gbps: float = 400.0, price: float | None = None) -> Cluster:
        """From the arguments of a command.

        Raises:
            InputError: a GPU that the table does not have, or a number without a meaning.
        """
        name = gpu.upper()
        if name not in PEAK:
            raise InputError(f"--gpu is {gpu!r}; use one of {', '.join(sorted(PEAK))}")
        for option, value in (("--network-gbps", network_gbps), ("--price", price)):
            if value is not None and not 0 < value < float("inf"):
                raise InputError(f"{option} is {value:g}; it must be above 0 and finite")
        return cls(PEAK[name], network_gbps, price)

    @property
    def reached(self) -> Row:
        """What such a GPU reaches, and how that is known."""
        return self.row or _table()[self.gpu.name]

    @property
    def rates(self) -> Rates:
        """The numbers of `reached`."""
        return self.reached.rates

    def carried(self, ranks: int) -> float:
        """Bytes a second, one direction, of a collective among `ranks` neighbouring ranks."""
        if ranks <= self.gpus_a_node:
            return self.gpu.link * LINK
        return self.network_gbps * 1e9 / 8 * NETWORK


@functools.cache
def _table() -> dict[str, Row]:
    """Read once; it has a row for every GPU of `PEAK`."""
    return read_table()
