"""A static step touches no tensor of the host: on a GPU each would be a copy that a capture forbids, or an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from inference.benchmark.models import TINY
from inference.cache.store import KVStore
from inference.graphs.runner import FRAME_BUCKETS, ROW_BUCKETS, GraphRunner
from inference.model import layers
from inference.model.load import ModelBuilder
from inference.model.rows import PagedView
from inference.model.video_mllama import VideoMllama
from inference.sampling import Sampler, SamplingConfig

META = torch.device("meta")


class _OneDevice(TorchDispatchMode):
    """Refuses operations on the host's tensors."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs, result)):
            assert not isinstance(tensor, torch.Tensor) or tensor.device == META, f"{func} has a tensor of the host"
        return result


def _attention(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scales: torch.Tensor | None, view: PagedView
) -> torch.Tensor:
    """The shapes of paged attention; its Triton form reads pages on the device alone, its torch form asks the host."""
    assert view.tables.device == view.session.device == view.limits.device == META
    return queries.flatten(1).clone()


@pytest.fixture(scope="module")
def model() -> VideoMllama:
    builder = ModelBuilder(TINY, META, torch.bfloat16, Path("nowhere"), {})
    for name, shape in builder.shapes.items():
        builder.take(name, torch.empty(shape, device=META, dtype=torch.bfloat16))
    return builder.finish()


@pytest.mark.parametrize(
    ("config", "fp8"),
    [
        (SamplingConfig(), True),
        (SamplingConfig(do_sample=True), False),
        (SamplingConfig(do_sample=True, top_k=5, top_p=0.9), False),
        (SamplingConfig(do_sample=True, top_p=0.9), False),
        (SamplingConfig(do_sample=True, repetition_penalty=0.8, silence_threshold=0.2), False),
    ],
)
def test_a_static_step_touches_no_tensor_of_the_host(
    model: VideoMllama, config: SamplingConfig, fp8: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "paged_attention", _attention)
    store = KVStore(TINY, META, torch.bfloat16, fp8_frames=fp8, raw_keys=fp8)
    runner = GraphRunner(model, store)
    runner.prepare([2, ROW_BUCKETS[-1]], [Sampler(config, banned=[1], silence_id=2, silenced=[3])])
    work = [*runner._graphs.values(), *runner._frame_graphs.values()]
    assert len(work) == 2 + len(FRAME_BUCKETS)
    with torch.inference_mode(), _OneDevice():  # type: ignore[no-untyped-call]
        for one in work:
            one()


def test_a_tensor_of_the_host_would_be_seen() -> None:
    with pytest.raises(AssertionError, match="of the host"), _OneDevice():  # type: ignore[no-untyped-call]
        torch.zeros(2, device=META).copy_(torch.zeros(2))
