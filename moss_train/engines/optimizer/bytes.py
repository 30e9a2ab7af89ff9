"""Memory of training one parameter, by the choices of the `optimizer` and `precision` groups. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from moss_train.config.optimizer import OptimizerConfig
from moss_train.config.schema import PrecisionConfig

_MOMENTS = {"fp32": 8.0, "bf16": 4.0, "fp8": 3.0}


@dataclass(frozen=True)
class ParameterBytes:
    """Bytes that a rank holds for a trained parameter. What `shared` says is divided among the data-parallel ranks
    (for tower and projector: all ranks) where the optimizer is distributed; the rest is whole on each of them."""

    weight: float
    gradient: float
    """The buffer that gradients are summed in."""
    master: float
    """The weight in fp32, or its lower half, beside a bf16 weight."""
    moments: float
    average: float
    """The running average of the weight."""
    temporary: float
    """For a moment of every update: fp32 copies of gradients, or of moments in fp8."""
    host: float
    """In the host's memory: master and moments of the offloaded share."""
    distributed: bool

    @property
    def shared(self) -> float:
        """Bytes of the device that a distributed optimizer divides among ranks, apart from temporary ones."""
        return self.master + self.moments + self.average

    def on_device(self, ranks: int = 1) -> float:
        """Bytes a parameter on each of the ranks that share the optimizer's state, temporary ones included."""
        return self.weight + self.gradient + (self.shared + self.temporary) / (ranks if self.distributed else 1)

    def on_host(self, ranks: int = 1) -> float:
        """Bytes a parameter of the host for each of those ranks."""
        return self.host / (ranks if self.distributed else 1)


def optimizer_bytes(optimizer: OptimizerConfig, precision: PrecisionConfig, *, vision: bool = False) -> ParameterBytes:
    """Bytes a trained parameter costs; a frozen one costs its weight alone.

    Args:
        optimizer: the choices.
        precision: dtype of weights and of reduced gradients.
        vision: a parameter of tower or projector, whose gradients are summed in fp32 always.
    """
    bf16 = precision.dtype == "bf16"
    gradient = 4.0 if not bf16 or precision.grad_reduce_fp32 or vision else 2.0
    moments = _MOMENTS[optimizer.moments] if optimizer.name == "adam" else 4.0 * optimizer.moment_count
    # Adam on a bf16 weight in Transformer Engine reads the gradient as it is; megatron-core's own masters take an fp32 copy.
    temporary = 4.0 if gradient < 4.0 and (not optimizer.precision_aware or optimizer.offload) else 0.0
    if optimizer.moments == "fp8":
        temporary += 8.0
    master = 0.0 if not bf16 else 2.0 if optimizer.master == "remainders" else 4.0
    stays = 1.0 - optimizer.offload
    return ParameterBytes(
        weight=2.0 if bf16 else 4.0,
        gradient=gradient,
        master=master * stays,
        moments=moments * stays,
        average=4.0 if optimizer.ema_decay else 0.0,
        temporary=temporary,
        host=optimizer.offload * (master + moments + 4.0),  # and the gradient, copied there
        distributed=optimizer.distributed,
    )
