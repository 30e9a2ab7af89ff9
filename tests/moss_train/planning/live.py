"""Bytes of tensors that are alive between the calls of a fused layer: what a GPU's allocator would have given out there.

What the row functions and libraries hold within a call is theirs alone: on a GPU they are single kernels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from model.vision.fused import layer as fused
from model.vision.fused.products import PLAIN, Products
from model.vision.layers import VisionLayer


class Live(TorchDispatchMode):
    """Notes storages as they are made, and the most bytes of them alive at once where `look` is called.

    Args:
        after: names of operators after which it looks by itself.
    """

    def __init__(self, after: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._after = after
        self._known: dict[int, tuple[StorageWeakRef, int]] = {}
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {value.untyped_storage()._cdata for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor) and value.untyped_storage()._cdata not in before:  # a view makes nothing
                storage = value.untyped_storage()
                self._known[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        if func.__name__.split(".")[0] in self._after:
            self.look()
        return result

    def now(self) -> int:
        """Bytes alive."""
        self._known = {key: (ref, size) for key, (ref, size) in self._known.items() if not ref.expired()}
        return sum(size for _, size in self._known.values())

    def look(self) -> None:
        self.most = max(self.most, self.now())


class _Looking:
    """Calls another object's functions and looks after each."""

    def __init__(self, inner: Any, live: Live) -> None:
        self._inner, self._live = inner, live

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._inner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            self._live.look()
            return result

        return call


@contextmanager
def watched(layers: list[VisionLayer], products: Products = PLAIN) -> Iterator[Live]:
    """Within it the layers have these products, and they, attention and row functions are looked at."""
    live = Live()
    choose = fused.choose

    def chosen(*args: Any) -> Any:
        found = choose(*args)
        looking = _Looking(found, live)
        return dataclasses.replace(found, forward=looking.forward, backward=looking.backward)

    for layer in layers:
        layer.products = _Looking(products, live)  # type: ignore[assignment]
    try:
        with patch.object(fused, "choose", chosen), patch.object(fused, "rows", _Looking(fused.rows, live)), live:
            yield live
    finally:
        for layer in layers:
            layer.products = None
