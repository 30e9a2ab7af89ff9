"""Names of adapters beside the names of what they adapt. Imports neither torch nor megatron-core."""

from __future__ import annotations

from collections.abc import Iterable

CHILD = "adapter"
"""Name of the adapter inside its layer: `linear_qkv.adapter.a` beside `linear_qkv.weight`."""


def is_adapter_name(name: str) -> bool:
    """Whether a parameter's dotted name is that of an adapter's factor."""
    return name.rpartition(".")[0].endswith(f".{CHILD}")


def adapter_keys(names: Iterable[str]) -> dict[str, str]:
    """The adapted matrices of a checkpoint.

    Args:
        names: all names in the checkpoint, the optimizer's included.

    Returns:
        The name of each adapted matrix -> the stem to which `.a` and `.b` are added.
    """
    stems = {name.rpartition(".")[0] for name in names if is_adapter_name(name) and name.startswith(("decoder.", "vision."))}
    return {f"{stem.removesuffix(f'.{CHILD}')}.weight": stem for stem in sorted(stems)}
