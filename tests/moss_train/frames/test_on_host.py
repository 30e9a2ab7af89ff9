"""States of frames that go to host memory and come back: the same gradients bit for bit, in bounded memory."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.config import TextConfig, VideoMllamaConfig, VisionConfig
from model.errors import InputError
from model.vision.encoder import VisionEncoder
from model.vision.fused.levels import KEPT, use_layers
from moss_train.frames import host_memory as memories
from moss_train.frames import on_host
from moss_train.frames.activations import activation_bytes
from moss_train.frames.host_memory import HostMemory, host_memory
from moss_train.frames.kept import keeping
from moss_train.frames.on_host import HostChunk
from moss_train.frames.owned import OwnedFrames
from moss_train.frames.settings import EncodeSettings

CPU = torch.device("cpu")
CONFIG = VideoMllamaConfig(
    vision=VisionConfig(
        hidden_size=32, num_attention_heads=2, num_hidden_layers=3, num_global_layers=2, intermediate_size=64, image_size=28,
        patch_size=7, intermediate_layers_indices=(1, 2), pool_stride=2,
    ),
    text=TextConfig(hidden_size=16, num_attention_heads=2, num_key_value_heads=2),
)  # fmt: skip
LEVELS = [("torch", "input"), ("torch", "all"), *(("fused", level) for level in KEPT)]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tiny states move too, across many pieces, with few on their way."""
    monkeypatch.setattr(on_host, "SMALLEST", 1)
    monkeypatch.setattr(memories, "PIECE", 5000)
    monkeypatch.setattr(memories, "ON_THE_WAY", 20_000)
    yield
    for memory in memories._FOUND:
        memory.close()
    memories._FOUND.clear()


def _encoder(layers: str, config: VideoMllamaConfig = CONFIG) -> VisionEncoder:
    torch.manual_seed(0)
    encoder = VisionEncoder(config)
    use_layers(encoder, layers)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return encoder


def _frames(count: int, config: VideoMllamaConfig = CONFIG, device: torch.device = CPU) -> tuple[Tensor, Tensor]:
    size = config.vision.image_size
    frames = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return frames.to(device), torch.ones(count, dtype=torch.int64, device=device)


def _gradients(encoder: VisionEncoder) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}
    encoder.zero_grad(set_to_none=True)
    return found


def _passes(encoder: VisionEncoder, level: str, count: int, chunk: HostChunk | None) -> dict[str, Tensor]:
    with keeping(encoder, level), chunk.saving() if chunk is not None else nullcontext():
        output = encoder(*_frames(count))
    (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
    return _gradients(encoder)


@pytest.mark.parametrize(("layers", "level"), LEVELS)
def test_gradients_are_those_of_states_on_the_device_bit_for_bit(layers: str, level: str) -> None:
    encoder, memory = _encoder(layers), HostMemory(1 << 24, CPU)
    expected = _passes(encoder, level, 3, None)
    chunk = HostChunk(memory, encoder)
    found = _passes(encoder, level, 3, chunk)
    assert expected.keys() == found.keys()
    assert [name for name, gradient in expected.items() if not torch.equal(gradient, found[name])] == []
    assert chunk.moved / 3 == pytest.approx(activation_bytes(CONFIG.vision, 4, level, fused=layers == "fused"), rel=0.1)
    assert memory.ahead == 0, "everything that came back was asked for"
    chunk.close()
    assert (memory.users, memory.used) == (0, 0) and memory.most >= chunk.moved


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.integers(1, 7), keep=st.integers(0, 4), host=st.integers(0, 8), chunk=st.integers(1, 4),
    levels=st.tuples(st.sampled_from(list(KEPT)), st.sampled_from(list(KEPT))), room=st.sampled_from([3000, 100_000, 1 << 24]),
)  # fmt: skip
def test_any_split_gives_the_same_gradients(
    count: int, keep: int, host: int, chunk: int, levels: tuple[str, str], room: int
) -> None:
    # In fp64: sums of another order, as those of other chunks, are a rounding apart, which is much of a gate's gradient.
    encoder, (frames, ids), memory = _encoder("fused").double(), _frames(count), HostMemory(room, CPU)
    shape = (count, CONFIG.vision.tokens_per_frame, CONFIG.text.hidden_size)
    gradient = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    whole = OwnedFrames(encoder, frames, ids, "tower", -1, EncodeSettings(fused=True))
    whole.backward(gradient)
    expected = _gradients(encoder)
    chosen = EncodeSettings(
        keep_mode=levels[0], host_mode=levels[1], chunk=chunk, again_chunk=chunk, fused=True, frame_bytes=9000
    )
    owned = OwnedFrames(encoder, frames, ids, "tower", keep, chosen, host, memory)
    assert owned.on_host == min(host, count) and owned.kept == min(keep, count - owned.on_host)
    assert memory.used <= room
    assert owned.features is not None and whole.features is not None
    torch.testing.assert_close(owned.features, whole.features, rtol=0, atol=1e-10)
    owned.backward(gradient)
    assert owned.encoded_again == count - owned.on_host - owned.kept
    for name, found in _gradients(encoder).items():
        torch.testing.assert_close(
            found, expected[name], rtol=0, atol=1e-10 * max(1.0, float(expected[name].abs().max())), msg=name
        )
    assert (memory.ahead, memory.users, memory.used) == (0, 0, 0)


class _Keeps(torch.autograd.Function):
    """Saves what it is given and hands it to a list in its backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, told: list[Tensor], *saved: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(*saved)
        ctx.told = told
        return x * 2

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        ctx.told.extend(ctx.saved_tensors)
        return gradient, None, *[None] * len(ctx.saved_tensors)


def test_tensors_of_one_storage_are_moved_once_and_keep_their_strides() -> None:
    memory, told = HostMemory(1 << 20, CPU), list[Tensor]()
    weight = torch.nn.Linear(8, 8)
    base = torch.randn(6, 8, 4)
    views = (base, base[1:3], base.transpose(0, 2), base[:, ::2], base.view(-1), base[..., :1].expand(6, 8, 3))
    other, parameter = torch.arange(40, dtype=torch.int16).view(5, 8), weight.weight
    x = torch.ones(3, requires_grad=True)
    chunk = HostChunk(memory, weight)
    with chunk.saving():
        first = _Keeps.apply(x, told, *views)
        last = _Keeps.apply(first, told, base, other, parameter)
    assert chunk.moved == base.nbytes + other.nbytes
    last.sum().backward()
    for found, wanted in zip(told, (base, other, parameter, *views), strict=True):
        assert torch.equal(found, wanted) and found.stride() == wanted.stride() and found.dtype == wanted.dtype
    assert told[2].data_ptr() == parameter.data_ptr(), "parameters stay"
    assert told[0].data_ptr() not in (base.data_ptr(), 0), "states come back as copies"
    assert memory.ahead == 0


def test_a_storage_that_is_not_there_any_more_is_not_taken_for_the_next_one() -> None:
    memory, told = HostMemory(1 << 24, CPU), list[Tensor]()
    x = torch.ones(3, requires_grad=True)
    chunk, passed = HostChunk(memory, None), x
    with chunk.saving():
        for number in range(50):
            passed = _Keeps.apply(passed, told, torch.full((64, 64), float(number)))  # freed: the next one has its memory
    passed.sum().backward()
    assert [float(values.mean()) for values in told] == [float(number) for number in reversed(range(50))]


def test_few_states_come_back_before_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, memory = _encoder("fused"), HostMemory(1 << 24, CPU)
    chosen = EncodeSettings(host_mode="attention", chunk=1, again_chunk=1, fused=True)
    owned = OwnedFrames(encoder, *_frames(5), "tower", 0, chosen, 5, memory)
    most, load = [0], HostMemory.load

    def loads(self: HostMemory, begin: int, length: int) -> Any:
        found = load(self, begin, length)
        most.append(self.ahead)
        return found

    monkeypatch.setattr(HostMemory, "load", loads)
    assert owned.features is not None
    layer = activation_bytes(CONFIG.vision, 4, "attention", fused=True) // 5
    owned.backward(torch.ones_like(owned.features))
    assert memories.ON_THE_WAY / 2 < max(most) <= memories.ON_THE_WAY + 2 * layer


def test_frames_that_never_go_back_leave_host_memory() -> None:
    encoder, memory = _encoder("fused"), HostMemory(1 << 24, CPU)
    owned = OwnedFrames(encoder, *_frames(4), "tower", 0, EncodeSettings(chunk=2, fused=True), 4, memory)
    assert memory.users == 2 and memory.used > 0
    owned._moved[0][3].prefetch()
    assert memory.ahead > 0
    del owned
    gc.collect()
    assert (memory.users, memory.used, memory.ahead) == (0, 0, 0)


def test_one_memory_for_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    first = host_memory(10_000, CPU)
    assert host_memory(10_000, CPU) is first
    assert host_memory(20_000, CPU) is not first and len(memories._FOUND) == 1
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(
        InputError, match=r"vision\.keep_host_gib is 1e\+06 for each of 4 ranks.*use vision\.keep_host_gib=\d+ or less"
    ):
        host_memory(10**6 * 2**30, CPU)


_WIDE = VideoMllamaConfig(
    vision=VisionConfig(num_hidden_layers=6, num_global_layers=2, intermediate_layers_indices=(1, 3)),
    text=TextConfig(hidden_size=512, num_attention_heads=4, num_key_value_heads=4),
)


@pytest.mark.gpu
@pytest.mark.parametrize("level", ["input", "attention", "most"])
def test_on_a_gpu_the_same_gradients_in_less_memory(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    device, count, gib = torch.device("cuda"), 48, 2**30
    monkeypatch.setattr(memories, "ON_THE_WAY", gib // 4)
    monkeypatch.setattr(memories, "PIECE", gib)
    encoder, (frames, ids) = _encoder("auto", _WIDE).to(device, torch.bfloat16), _frames(count, _WIDE, device)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    gradient = torch.randn((count, _WIDE.vision.tokens_per_frame, 512), device=device)
    memory = HostMemory(16 * gib, device)
    torch.use_deterministic_algorithms(True, warn_only=True)

    def run(host: int) -> tuple[dict[str, Tensor], int, int]:
        chosen = EncodeSettings(keep_mode=level, host_mode=level, chunk=16, again_chunk=16, fused=True)
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        owned = OwnedFrames(encoder, frames, ids, "tower", -1 if not host else 0, chosen, host, memory)
        memory.settle(0)
        held = torch.cuda.memory_allocated() - before
        torch.cuda.reset_peak_memory_stats()
        owned.backward(gradient)
        torch.cuda.synchronize()
        return _gradients(encoder), held, torch.cuda.max_memory_allocated() - before

    try:
        expected, on_device, peak = run(0)
        repeated, _, _ = run(0)
        for _ in range(2):  # the second time from memory that is locked already: copies are not held up
            found, left, less = run(count)
            for name, wanted in expected.items():
                apart = float((repeated[name] - wanted).abs().max())  # 0 where kernels add in the same order every time
                assert float((found[name] - wanted).abs().max()) <= 4 * apart, name
        assert memory.most > 0
        moved = count * activation_bytes(_WIDE.vision, 2, level, fused=True)
        assert on_device - left == pytest.approx(moved, rel=0.1)
        assert peak - less > 0.5 * moved - gib // 2
        assert (memory.users, memory.ahead) == (0, 0)
    finally:
        torch.use_deterministic_algorithms(False)
        memory.close()
