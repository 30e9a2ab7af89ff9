"""Values come to the host in blocks of bounded memory, in order and bit for bit."""

from __future__ import annotations

import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moss_train.checkpoint.blocks import BLOCK_BYTES, BlockBuffers, copied_blocks, host_blocks
from moss_train.checkpoint.piece import Piece
from moss_train.checkpoint.piece_file import Outgoing

DTYPES = (torch.bfloat16, torch.int16, torch.float32, torch.uint8)


def _values(shape: tuple[int, ...], dtype: torch.dtype, device: str = "cpu") -> torch.Tensor:
    generator = torch.Generator().manual_seed(math.prod(shape))
    count = math.prod(shape) * dtype.itemsize
    return torch.randint(0, 256, (count,), generator=generator, dtype=torch.uint8).view(dtype).view(shape).to(device)


def _gathered(values: torch.Tensor, buffers: BlockBuffers) -> bytes:
    return b"".join(block.clone().view(torch.uint8).numpy().tobytes() for block in copied_blocks(values, buffers))


@given(
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple),
    dtype=st.sampled_from(DTYPES),
    block=st.sampled_from([8, 16, 64, 1024]),
)  # fmt: skip
def test_blocks_hold_the_values_in_order_in_two_buffers(shape: tuple[int, ...], dtype: torch.dtype, block: int) -> None:
    values, buffers = _values(shape, dtype), BlockBuffers(block)
    for _ in range(2):
        assert _gathered(values, buffers) == values.reshape(-1).view(torch.uint8).numpy().tobytes()
    assert buffers.made == min(2, -(-values.numel() * dtype.itemsize // block))
    assert all(part.numel() * part.element_size() <= block for part in copied_blocks(values, buffers))


def test_what_is_given_up_gives_its_blocks_back_and_writers_borrow_their_own() -> None:
    buffers = BlockBuffers(8)
    blocks = copied_blocks(_values((64,), torch.int16), buffers)
    next(blocks)
    blocks.close()
    assert buffers.made == 2
    with ThreadPoolExecutor(3) as pool:
        wanted = [_values((200 + n,), torch.bfloat16) for n in range(6)]
        found = list(pool.map(lambda values: _gathered(values, buffers), wanted))
    assert found == [values.view(torch.uint8).numpy().tobytes() for values in wanted]
    assert buffers.made <= 6


def test_values_of_the_cpu_are_not_copied() -> None:
    values = _values((4, 5), torch.float32)
    (block,) = host_blocks(values)
    assert block.data_ptr() == values.data_ptr()
    scalar = torch.tensor(3.0)
    assert [b.tolist() for b in host_blocks(scalar)] == [[3.0]]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_gpu_tensor_is_written_without_more_of_the_gpus_memory(dtype: torch.dtype) -> None:
    values = _values((5 * BLOCK_BYTES // dtype.itemsize + 17,), dtype, "cuda")
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    piece = Piece("weight", tuple(values.shape), (0,), tuple(values.shape), values)
    found = b"".join(block.view(torch.uint8).numpy().tobytes() for block in Outgoing.of(piece).blocks())
    assert torch.cuda.max_memory_allocated() - before == 0
    assert found == values.cpu().view(torch.uint8).numpy().tobytes()


_WRITE_FROM_THE_SECOND = """
import threading, torch
from moss_train.checkpoint.blocks import host_blocks
torch.cuda.set_device(1)
values = torch.ones(3, device="cuda")
written = threading.Thread(target=lambda: list(host_blocks(values)))
written.start()
written.join()
print([torch._C._cuda_hasPrimaryContext(gpu) for gpu in (0, 1)])
"""


@pytest.mark.gpu
def test_a_writers_thread_stays_on_the_rank_s_own_gpu() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    ended = subprocess.run(
        [sys.executable, "-c", _WRITE_FROM_THE_SECOND], capture_output=True, text=True, timeout=120, check=True
    )
    assert ended.stdout.split("\n")[-2] == "[False, True]", "a context takes half a GB of the first GPU for each rank"
