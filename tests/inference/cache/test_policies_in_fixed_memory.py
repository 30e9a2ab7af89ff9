"""Pages of exactly the promised number are enough, and a GPU computes what a CPU does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from inference.benchmark.models import TINY
from inference.cache.allocator import OutOfPagesError
from inference.cache.policies import CachePolicy, parse_policy
from inference.cache.policies.text import TextWindow
from inference.cache.store import KVStore
from inference.engine import StepEngine
from inference.model.load import load_model
from tests.inference.checkpoints import random_tensors, write_checkpoint

IMAGE, PAGE_ROWS = TINY.image_token_id, 8
POLICIES = ("window:3", "sink_window:2:3", "pooled:2:1:1", "offload:3:2:9")
side = TINY.vision.image_size
FRAMES = torch.randint(0, 256, (10, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))


def run(folder: Path, spelled: str, device: str, steps: int, spare_frames: int = 0) -> tuple[torch.Tensor, list[int]]:
    """Logits of each step in a store of exactly the policy's bounds, and bytes allocated after each step."""
    model = load_model(folder, device)
    cross = parse_policy(spelled)
    tokens = TINY.vision.tokens_per_frame
    most = cross.most_pages(tokens, 2)
    assert most is not None
    text = TextWindow(4, 16)
    limit = text.most_rows(PAGE_ROWS, 8) + most + 8
    policy = CachePolicy(cross=cross, text=text, position_limit=limit, step_rows=8, step_frames=2)
    bounds = policy.bounds(PAGE_ROWS, tokens, max_rows=10**6, max_frames=10**6)
    store = KVStore(
        TINY,
        model.device,
        model.dtype,
        positions=bounds.row_pages * PAGE_ROWS,
        frames=bounds.frame_pages + spare_frames,
        growable=False,
        raw_keys=True,
        rows_per_page=PAGE_ROWS,
    )
    engine = StepEngine(model, store)
    cache = engine.new_cache(policy=policy)
    every, found, sizes = engine.encode(FRAMES), [], []
    for i in range(steps):
        if i % 9 == 8:
            cache.prompt_boundary()
        found.append(engine.step(cache, [7, IMAGE, i % 300, IMAGE], every[[i % 10, 3 * i % 10]]).cpu())
        sizes.append(torch.cuda.memory_allocated() if device == "cuda" else store.num_bytes)
    assert cache.renumberings > 1
    return torch.cat(found), sizes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("fixed"), TINY, tensors=random_tensors(TINY, seed=1))


@pytest.mark.parametrize("spelled", POLICIES)
def test_the_bounds_are_enough(folder: Path, spelled: str) -> None:
    logits, _ = run(folder, spelled, "cpu", 40)
    assert torch.isfinite(logits).all()


def test_one_page_less_is_not(folder: Path) -> None:
    with pytest.raises(OutOfPagesError):
        run(folder, "sink_window:2:3", "cpu", 40, spare_frames=-1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("spelled", POLICIES)
def test_a_gpu_keeps_the_same_and_allocates_nothing(folder: Path, spelled: str) -> None:
    expected, _ = run(folder, spelled, "cpu", 40)
    logits, sizes = run(folder, spelled, "cuda", 40)
    torch.testing.assert_close(logits, expected, atol=2e-3, rtol=0)
    # The archive's descriptors (offload) are the only thing that fills up; its capacity is reached after a few steps.
    assert sizes[-1] == sizes[25]
