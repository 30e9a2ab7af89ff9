"""What differs between a machine with CUDA and one without: `install()` is called once by entry points, before
anything of megatron-core is imported; with CUDA and Transformer Engine it changes nothing but SGD."""

from __future__ import annotations


def install() -> bool:
    """Prepare this process for megatron-core on whatever machine it runs on.

    Without CUDA: the device shim, a fused-optimizer stand-in and an in-process checkpoint writer. With CUDA: the stand-in
    alone, and only where neither Transformer Engine nor Apex is installed. Everywhere: torch's SGD.

    Returns:
        True where the CPU shim is in place.
    """
    from moss_train.platform import checkpoint_writer, cpu_shim, fused_adam, plain_sgd

    on_cpu = cpu_shim.install()
    fused_adam.install()
    plain_sgd.install()
    if on_cpu:
        checkpoint_writer.install()
    return on_cpu
