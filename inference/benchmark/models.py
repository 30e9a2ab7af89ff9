"""Models to measure: their dimensions by name, and weights drawn on the device one tensor at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch

from inference.model.linear import FACTOR
from inference.model.load import text_shapes
from inference.model.video_mllama import VideoMllama
from inference.quantize.recipes import recipe_of
from inference.quantize.rows import quantize_rows
from model.config import TextConfig, VideoMllamaConfig, VisionConfig
from model.vision.encoder import VisionEncoder

TINY = VideoMllamaConfig(
    vision=VisionConfig(
        hidden_size=32,
        num_attention_heads=2,
        num_hidden_layers=3,
        num_global_layers=1,
        intermediate_size=64,
        image_size=64,
        patch_size=8,
        intermediate_layers_indices=(1, 2),
        pool_stride=4,
    ),
    text=TextConfig(
        vocab_size=320,
        hidden_size=64,
        num_hidden_layers=5,
        cross_attention_layers=(1, 3),
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=96,
        max_position_embeddings=16384,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    ),
)
"""For trials on a CPU, and for the comparison in fp32 that must agree to the token."""

MODELS = {"11b": VideoMllamaConfig(), "tiny": TINY}


class RandomTensors(Mapping[str, torch.Tensor]):
    """The decoder's tensors by name, each drawn when it is asked for and kept by nobody here: peak memory is the model.

    Matrices have the variance 1 / (numbers in a row), norms are 1 and gates open, so that every weight matters to the logits.
    A tensor's values depend on the seed and its name alone (and on the kind of device, whose generators differ).

    Args:
        shapes: of all tensors.
        device: where they are drawn.
        dtype: in which they are drawn.
        seed: of all of them.
        rounded: says which matrices are kept in fp8; the factors of such a one can be had once, behind it.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        device: torch.device,
        dtype: torch.dtype,
        seed: int,
        rounded: Callable[[str], bool] = lambda name: False,
    ) -> None:
        self._shapes, self._device, self._dtype, self._seed, self._rounded = shapes, device, dtype, seed, rounded
        self._factors: dict[str, torch.Tensor] = {}

    def __getitem__(self, name: str) -> torch.Tensor:
        if name in self._factors:
            return self._factors.pop(name)
        if not self._rounded(name):
            return self._draw(name)
        matrix, self._factors[name + FACTOR] = quantize_rows(self._draw(name))
        return matrix

    def _draw(self, name: str) -> torch.Tensor:
        shape = self._shapes[name]
        tensor = torch.empty(shape, device=self._device, dtype=self._dtype)
        if "gate" in name and shape == (1,):
            return tensor.fill_(0.5)
        if len(shape) == 1 and "norm" in name and name.endswith("weight"):
            return tensor.fill_(1.0)
        digest = hashlib.blake2b(f"{self._seed} {name}".encode(), digest_size=7).digest()
        generator = torch.Generator(self._device).manual_seed(int.from_bytes(digest, "little"))
        # The embedding is as wide as the states that the layers add to.
        deviation = 1.0 if "embed_tokens" in name else (0.02 if len(shape) == 1 or "embedding" in name else shape[-1] ** -0.5)
        return tensor.normal_(0.0, deviation, generator=generator)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


def random_model(
    config: VideoMllamaConfig, device: str | torch.device, dtype: torch.dtype, *, seed: int = 0, recipe: str = "bf16"
) -> VideoMllama:
    """A model of these dimensions with random weights, built on the device.

    Args:
        config: dimensions.
        device: where it is built and stays.
        dtype: of weights, activations and caches.
        seed: of the weights, which are the same whatever the recipe.
        recipe: which of the decoder's matrices are rounded to fp8, each as it is drawn.

    Raises:
        InputError: an unknown recipe.
    """
    chosen = recipe_of(recipe)
    device = torch.device(device)
    with torch.device("meta"):
        vision = VisionEncoder(config)
    shapes = {key: tuple(value.shape) for key, value in vision.state_dict().items()}
    drawn = RandomTensors(shapes | text_shapes(config), device, dtype, seed, lambda name: chosen.covers(name, config))
    vision.load_state_dict({key: drawn[key] for key in shapes}, assign=True)
    vision.requires_grad_(False).eval()
    return VideoMllama(config, vision, drawn, folder=Path("random"), details={})


def valid_patch_rows(config: VideoMllamaConfig, aspect: float = 16 / 9) -> int:
    """Rows of the patch grid that hold a picture of this aspect ratio, the rest is padding."""
    side, patch = config.vision.image_size, config.vision.patch_size
    return -(-round(side / aspect) // patch)
