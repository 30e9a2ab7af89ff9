"""What is kept of a frame: its size as predicted, and gradients that do not depend on it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from model.config import TextConfig, VideoMllamaConfig, VisionConfig
from model.errors import InputError
from model.vision.encoder import VisionEncoder
from model.vision.fused.levels import KEPT, TORCH_LEVELS, use_layers
from moss_train.frames.activations import activation_bytes
from moss_train.frames.kept import keeping

FRAMES = 3


def _config(width: int = 64, heads: int = 4, layers: int = 4, pool: str = "average") -> VideoMllamaConfig:
    return VideoMllamaConfig(
        vision=VisionConfig(
            hidden_size=width, num_attention_heads=heads, num_hidden_layers=layers, num_global_layers=2,
            intermediate_size=3 * width, image_size=56, patch_size=7, intermediate_layers_indices=(1, 3), pool_stride=2,
            pool_mode=pool,
        ),
        text=TextConfig(hidden_size=32, num_attention_heads=4, num_key_value_heads=2),
    )  # fmt: skip


LEVELS = [("torch", level) for level in TORCH_LEVELS] + [("fused", level) for level in KEPT]


def _encoder(
    config: VideoMllamaConfig, dtype: torch.dtype = torch.float32, device: str = "cpu", layers: str = "torch"
) -> VisionEncoder:
    torch.manual_seed(0)
    encoder = VisionEncoder(config)
    use_layers(encoder, layers)
    torch.nn.init.constant_(encoder.vision_model.gated_positional_embedding.gate, 0.5)
    return encoder.to(device=device, dtype=dtype)


def _frames(config: VideoMllamaConfig, device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    size = config.vision.image_size
    generator = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 256, (FRAMES, 3, size, size), dtype=torch.uint8, generator=generator)
    return frames.to(device), torch.ones(FRAMES, dtype=torch.int64, device=device)


class _Attentions(TorchDispatchMode):
    """Counts the forward passes of attention that really run."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += "scaled_dot_product" in str(func) and "backward" not in str(func)
        return func(*args, **(kwargs or {}))


def _run(encoder: VisionEncoder, config: VideoMllamaConfig, mode: str) -> tuple[torch.Tensor, dict[str, torch.Tensor], int]:
    """Features, gradients, and attention forward passes during the backward pass."""
    encoder.zero_grad()
    with keeping(encoder, mode):
        output = encoder(*_frames(config))
    with _Attentions() as attentions:
        (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
    return output.detach(), {n: p.grad for n, p in encoder.named_parameters() if p.grad is not None}, attentions.count


@pytest.mark.parametrize(("layers", "level"), LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_level_gives_the_same_gradients(dtype: torch.dtype, layers: str, level: str) -> None:
    config = _config()
    encoder = _encoder(config, dtype, layers=layers)
    output, gradients, _ = _run(encoder, config, "all")
    again, kept, attentions = _run(encoder, config, level)
    assert torch.equal(output, again)
    assert attentions == (6 if level == "input" else 0), "forward passes of attention in the backward pass"
    assert gradients.keys() == kept.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(kept[name], gradient, rtol=1e-6, atol=1e-6 * float(gradient.abs().max()), msg=name)


def test_layers_train_above_an_input_that_does_not() -> None:
    config = _config()
    encoder = _encoder(config)
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_("q_proj" in name)
    _, gradients, _ = _run(encoder, config, "all")
    _, kept, _ = _run(encoder, config, "attention")
    assert len(kept) == 6 and all(torch.allclose(kept[n], g, rtol=1e-6, atol=1e-9) for n, g in gradients.items())


def test_fused_layers_compute_what_operators_do() -> None:
    config = _config()
    expected, gradients, _ = _run(_encoder(config), config, "all")
    output, found, _ = _run(_encoder(config, layers="fused"), config, "middle")
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-5)
    assert gradients.keys() == found.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-5 * max(1.0, float(gradient.abs().max())), msg=name)


@pytest.mark.parametrize(("layers", "mode"), LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sizes", [(64, 4, 4), (80, 2, 6)])
def test_predicted_bytes_are_those_allocated(layers: str, mode: str, dtype: torch.dtype, sizes: tuple[int, int, int]) -> None:
    config = _config(*sizes)
    encoder, inputs = _encoder(config, dtype, layers=layers), _frames(config)
    with keeping(encoder, mode), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as measured:
        output = encoder(*inputs)
    left = sum(event.self_cpu_memory_usage for event in measured.key_averages()) - output.untyped_storage().nbytes()
    assert left / FRAMES == pytest.approx(
        activation_bytes(config.vision, dtype.itemsize, mode, fused=layers == "fused"), rel=0.02
    )


def test_bytes_at_full_size() -> None:
    vision = VisionConfig()
    assert activation_bytes(vision, 2) == pytest.approx(2.7e9, rel=0.01)
    assert activation_bytes(vision, 2, "attention") == pytest.approx(0.35e9, rel=0.01)
    fused = [activation_bytes(vision, 2, level, fused=True) for level in KEPT]
    assert fused == pytest.approx([0.181e9, 0.350e9, 0.515e9, 1.009e9, 1.668e9], rel=0.005)


def test_an_encoder_without_such_layers_is_refused() -> None:
    with pytest.raises(InputError, match=r"vision\.keep_mode is attention"), keeping(torch.nn.Linear(2, 2), "attention"):
        pass


@pytest.mark.gpu
@pytest.mark.parametrize(("layers", "mode"), LEVELS)
def test_predicted_bytes_on_cuda(layers: str, mode: str) -> None:
    """Layers of the full width in bf16, few of them."""
    config = VideoMllamaConfig(vision=VisionConfig(num_hidden_layers=4, num_global_layers=2, intermediate_layers_indices=(1, 3)))
    encoder, inputs = _encoder(config, torch.bfloat16, "cuda", layers), _frames(config, "cuda")
    encoder(*inputs).sum().backward()  # libraries have their workspaces from here on
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    with keeping(encoder, mode):
        output = encoder(*inputs)
    left = torch.cuda.memory_allocated() - before - output.untyped_storage().nbytes()
    assert left / FRAMES == pytest.approx(activation_bytes(config.vision, 2, mode, fused=layers == "fused"), rel=0.05)
