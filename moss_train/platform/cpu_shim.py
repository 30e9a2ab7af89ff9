"""Lets megatron-core run on a machine without CUDA.

megatron-core asks `torch.cuda` for the current device, streams, events and random states whatever the machine is.
Here those answers lead to the CPU. `current_device()` stays a plain int, as on CUDA, because callers format it into
strings; tensor factories map an int or "cuda" device to the CPU. Process-wide: only entry points and the test
set-up install it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch

_MARK = "_moss_cpu_shim"
_FACTORIES = (
    *("empty", "zeros", "ones", "full", "empty_like", "zeros_like", "ones_like", "full_like"),
    *("tensor", "as_tensor", "arange", "linspace", "eye", "rand", "randn", "randint"),
)


class Stream:
    """Stands for `torch.cuda.Stream`: work on the CPU is already in order."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def wait_stream(self, *_: Any) -> None: ...

    def wait_event(self, *_: Any) -> None: ...

    def record_event(self, event: Any = None) -> Any:
        return event

    def synchronize(self) -> None: ...

    def query(self) -> bool:
        return True

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: Any) -> None: ...


class Event:
    """Stands for `torch.cuda.Event`; it measures nothing."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def record(self, *_: Any) -> None: ...

    def wait(self, *_: Any) -> None: ...

    def synchronize(self) -> None: ...

    def query(self) -> bool:
        return True

    def elapsed_time(self, _: Any) -> float:
        return 0.0


def is_cuda_device(device: Any) -> bool:
    """Whether a `device` argument means a GPU: an int, "cuda[:n]" or a CUDA `torch.device`."""
    if isinstance(device, bool):
        return False
    if isinstance(device, int):
        return True
    if isinstance(device, str):
        return device.startswith("cuda")
    return isinstance(device, torch.device) and device.type == "cuda"


def install() -> bool:
    """Install the shim unless CUDA is there or it is installed already.

    Returns:
        True where the shim is in place, False on a machine with CUDA.
    """
    if torch.cuda.is_available():
        return False
    if getattr(torch.cuda, _MARK, False):
        return True
    setattr(torch.cuda, _MARK, True)
    logging.getLogger("megatron.core.tensor_parallel.random").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*(Transformer Engine|Apex).*")
    _replace_modules()
    _patch_cuda()
    _patch_tensors()
    with _absent("wandb"):  # megatron-core imports it for an inference engine's log: a second of every start
        _patch_random()
    return True


@contextlib.contextmanager
def _absent(name: str) -> Iterator[None]:
    """Let an optional import fail for a while, unless the module is loaded already."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


def _patch(owner: Any, name: str, value: Any) -> None:
    setattr(owner, name, value)


def _nothing() -> Callable[..., None]:
    # A new function at each place: torch's compiler asserts when two names share one object.
    def do_nothing(*_: Any, **__: Any) -> None: ...

    return do_nothing


def _zero() -> Callable[..., int]:
    def zero(*_: Any, **__: Any) -> int:
        return 0

    return zero


def _replace_modules() -> None:
    """Keep torch.compile and its C++ builds out: half of megatron-core's import time, and of no use here."""
    if "megatron.core.jit" not in sys.modules:

        def keep(function: Any) -> Any:
            return function

        jit = types.ModuleType("megatron.core.jit")
        for name in ("noop_decorator", "jit_fuser"):
            _patch(jit, name, keep)
        for name in ("enable_jit_fuser", "disable_jit_fuser"):
            _patch(jit, name, _nothing())
        sys.modules["megatron.core.jit"] = jit
    stash = "megatron.core.transformer.moe.ops.paged_stash"
    if importlib.util.find_spec("triton") is None and stash not in sys.modules:
        # Newer megatron-core imports this triton kernel unconditionally; it is only for mixtures of experts.
        sys.modules[stash] = types.ModuleType(stash)


def _patch_cuda() -> None:
    cuda = torch.cuda
    stream = Stream()

    def seed(value: int) -> None:
        torch.default_generator.manual_seed(int(value))  # torch.manual_seed would call back into this function

    def get_state(device: Any = None) -> torch.Tensor:
        return torch.get_rng_state()

    def set_state(state: torch.Tensor, device: Any = None) -> None:
        torch.set_rng_state(state)

    for name in ("set_device", "synchronize", "empty_cache"):
        _patch(cuda, name, _nothing())
    for name in ("current_device", "memory_allocated", "max_memory_allocated", "memory_reserved"):
        _patch(cuda, name, _zero())
    _patch(cuda, "Stream", Stream)
    _patch(cuda, "Event", Event)
    _patch(cuda, "stream", lambda *_: contextlib.nullcontext())
    _patch(cuda, "current_stream", lambda *_, **__: stream)
    _patch(cuda, "default_stream", lambda *_, **__: stream)
    _patch(cuda, "manual_seed", functools.partial(seed))
    _patch(cuda, "manual_seed_all", functools.partial(seed))
    for owner in (cuda, cuda.random):
        _patch(owner, "get_rng_state", functools.partial(get_state))
        _patch(owner, "set_rng_state", functools.partial(set_state))
    _patch(cuda.nvtx, "range_push", _nothing())
    _patch(cuda.nvtx, "range_pop", _nothing())


def _on_cpu(factory: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(factory)
    def make(*args: Any, **kwargs: Any) -> Any:
        if "device" in kwargs and is_cuda_device(kwargs["device"]):
            kwargs["device"] = "cpu"
        kwargs.pop("pin_memory", None)
        return factory(*args, **kwargs)

    return make


def _patch_tensors() -> None:
    # `with torch.device("meta")` looks factories up by identity and remembers them: let it remember the originals.
    importlib.import_module("torch.utils._device")._device_constructors()
    for name in _FACTORIES:
        _patch(torch, name, _on_cpu(getattr(torch, name)))
    tensor: Any = torch.Tensor
    original_type, original_to = tensor.type, tensor.to

    @functools.wraps(original_type)
    def type_(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        result = original_type(self, *args, **kwargs)
        # The optimizers compare against the literal "torch.cuda.FloatTensor".
        if not args and not kwargs and sys._getframe(1).f_globals.get("__name__", "").startswith("megatron.core.optimizer"):
            return result.replace("torch.", "torch.cuda.")
        return result

    @functools.wraps(original_to)
    def to(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if args and is_cuda_device(args[0]):
            args = ("cpu", *args[1:])
        if is_cuda_device(kwargs.get("device")):
            kwargs["device"] = "cpu"
        moved: torch.Tensor = original_to(self, *args, **kwargs)
        return moved

    def same(self: Any, *_: Any, **__: Any) -> Any:
        return self

    _patch(tensor, "type", type_)
    _patch(tensor, "to", to)
    _patch(tensor, "cuda", same)
    _patch(tensor, "pin_memory", same)
    _patch(tensor, "record_stream", _nothing())
    _patch(torch.nn.Module, "cuda", same)


def _patch_random() -> None:
    import megatron.core.tensor_parallel.random as tracker

    _patch(tracker, "_get_cuda_rng_state", lambda device="cuda", clone=False, graph_safe=False: torch.get_rng_state())
    _patch(tracker, "_set_cuda_rng_state", lambda state, device=-1, graph_safe=False: torch.set_rng_state(state))
    if hasattr(tracker, "FP8GlobalStateManager"):
        return

    class NoFP8:
        """Selective recompute names the fp8 state even when fp8 is off."""

        @staticmethod
        def is_fp8_enabled() -> bool:
            return False

        @staticmethod
        def get_fp8_recipe() -> None:
            return None

    @contextlib.contextmanager
    def nothing(**_: Any) -> Iterator[None]:
        yield

    _patch(tracker, "FP8GlobalStateManager", NoFP8)
    _patch(tracker, "fp8_autocast", nothing)
    _patch(tracker, "activation_recompute_forward", nothing)
