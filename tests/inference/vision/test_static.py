"""What a CUDA graph captures may not read the device, depend on data in its shapes, or bring numbers from the host."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from inference.vision.encoder import FrameEncoder
from inference.vision.mode import VISION_MODES
from tests.inference.vision.towers import random_frames, vision_encoder

FORBIDDEN = {
    "lift_fresh",
    "_local_scalar_dense",
    "nonzero",
    "unique2",
    "_unique2",
    "masked_select",
    "item",
    "equal",
    "is_nonzero",
}


class _Seen(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", list(VISION_MODES))
def test_a_call_that_ran_once_stays_on_the_device(name: str) -> None:
    encoder = FrameEncoder(vision_encoder(), mode=VISION_MODES[name], graph_sizes=(2,), key_value=[torch.sin])
    frames = random_frames(2, height=18)
    expected = encoder.encode(frames)
    call = next(iter(encoder._static.values()))
    with torch.inference_mode(), _Seen() as seen:
        features, raw = call.run()
    assert torch.equal(features, expected) and raw is not None
    assert len(seen.names) > 50
    assert not FORBIDDEN & set(seen.names)


def test_what_is_forbidden_is_seen() -> None:
    with _Seen() as seen:
        torch.tensor([1.0, 2.0])
        torch.ones(2).nonzero()
        float(torch.ones(()))
    assert {"lift_fresh", "nonzero", "_local_scalar_dense"} <= set(seen.names)


def test_a_static_call_reads_its_buffer_each_time() -> None:
    encoder = FrameEncoder(vision_encoder(), graph_sizes=(1, 2), chunk=2)
    a, b = random_frames(2, seed=1), random_frames(2, seed=2)
    first, second = encoder.encode(a), encoder.encode(b)
    kept = first.clone()
    assert not torch.equal(first, second)
    torch.testing.assert_close(torch.cat([encoder.encode(a[:1]), encoder.encode(a[1:])]), kept, atol=1e-5, rtol=0)
    assert torch.equal(first, kept)  # results are no views of buffers
