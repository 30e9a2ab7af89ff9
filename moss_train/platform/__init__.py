"""What differs between a machine with CUDA and one without: `install()` is called once by entry points, before
anything of megatron-core is imported; with CUDA it changes nothing."""

from __future__ import annotations


def install() -> bool:
    """Prepare this process for megatron-core on whatever machine it runs on.

    Without CUDA: the device shim, a fused-optimizer stand-in and an in-process checkpoint writer. With CUDA: nothing.

    Returns:
        True where the CPU shim is in place.
    """
    from moss_train.platform import checkpoint_writer, cpu_shim, fused_adam

    if not cpu_shim.install():
        return False
    fused_adam.install()
    checkpoint_writer.install()
    return True
