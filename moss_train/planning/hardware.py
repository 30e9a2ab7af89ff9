"""What GPUs reach of what their vendors state, and what links and networks carry: the assumptions of predicted times.

Shares of the H100 were measured with `moss plan measure` (docs/benchmarks/plan-memory.md), those of the H200 in
docs/benchmarks/transformer-engine.md (a decoder layer 559, the tower 381 TFLOP/s, forward and backward). An A100 has more
bandwidth for each operation than either and is taken to reach the H200's shares; nothing was run on one.
"""

from __future__ import annotations

from dataclasses import dataclass

from model.errors import InputError
from moss_train.planning.flops import PEAK, Gpu


@dataclass(frozen=True)
class Reached:
    """Shares of a GPU's peak, of forward and backward pass together."""

    decoder: float
    tower: float
    measured: bool


REACHED = {"H100": Reached(0.465, 0.35, True), "H200": Reached(0.565, 0.385, True), "A100": Reached(0.565, 0.385, False)}
FORWARD = 1.21
"""Rate of the tower's forward pass in units of both passes' rate; backward takes 2.63 times as long as forward. Measured on an
H100: 479 ms and 1,238 ms for 64 frames."""
TORCH_MODULES = 482 / 559
"""Rate of layers made of torch's modules, to Transformer Engine's."""
FP8 = 751 / 565
"""Rate of self layers in fp8, to bf16; where there is fp8."""
BANDWIDTH = 0.85
"""Share of a memory's bandwidth that element-wise kernels reach."""
LOGIT_BYTES = 40
"""Read and written for each logit, forward and backward: fp32 copies, log-probabilities, two gradients."""
ACCUMULATED_BYTES = 12
"""Read and written for each trained weight when its gradient of a micro-batch is added to the fp32 buffer."""
UPDATED_BYTES = 42
"""Read and written for each trained weight of a rank's share in an update: norm, clipping, gradient, master, two moments."""
HOST_LAYER = 0.008
"""Seconds in which the host starts the kernels of one decoder layer, forward and backward: a GPU that computes faster waits."""
HOST_MICRO_BATCH = 0.020
"""The same for what a micro-batch needs beside its layers. Both estimated from steps of three to six layers on hosts of H100;
40 layers of 4,096 rows, which keep the GPU busy, take longer."""
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
    def reached(self) -> Reached:
        """What such a GPU reaches."""
        return REACHED[self.gpu.name]

    def carried(self, ranks: int) -> float:
        """Bytes a second, one direction, of a collective among `ranks` neighbouring ranks."""
        if ranks <= self.gpus_a_node:
            return self.gpu.link * LINK
        return self.network_gbps * 1e9 / 8 * NETWORK
