"""Random weights that depend on the seed and the tensor's name only: the same model comes out of every layout."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from model.config import VideoMllamaConfig
from model.conversion.table import hf_shapes

TEXT_DEVIATION = 0.02
"""Standard deviation of the decoder's matrices, the family's usual `initializer_range`."""

POSITION_DEVIATION = 1.0
"""Standard deviation of the tower's table of positions. Smaller ones drown beside the patch embedding: a tower that starts
at random then forgets where things are, and directions are not learned (docs/decisions/0005)."""

_RESIDUAL_OUTPUTS = ("o_proj.weight", "down_proj.weight")


class RandomWeights(Mapping[str, Tensor]):
    """Published names to freshly drawn fp32 tensors, made when asked for.

    The decoder's matrices are normal with one deviation, those that write into the residual stream divided by the root
    of the number of its branches. The tower's and the projector's matrices have the deviation (3 * fan_in) ** -0.5,
    torch's own; positions have `POSITION_DEVIATION`. Norms are 1, biases 0, gates of the tower's global layers pi / 4,
    all other gates 0.

    Args:
        config: of the model.
        seed: equal seeds give equal values on one kind of device; a GPU's are others than a CPU's.
        text_deviation: of the decoder's matrices.
        device: where tensors are drawn, and where they lie.
    """

    def __init__(
        self, config: VideoMllamaConfig, seed: int, text_deviation: float = TEXT_DEVIATION,
        device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        self.config, self.seed, self.text_deviation, self.device = config, seed, text_deviation, torch.device(device)
        self.shapes = hf_shapes(config)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def _deviation(self, name: str, shape: tuple[int, ...]) -> float:
        if name.startswith("language_model."):
            branches = 2 * self.config.text.num_hidden_layers
            return self.text_deviation / (math.sqrt(branches) if name.endswith(_RESIDUAL_OUTPUTS) else 1.0)
        if name.endswith("embedding.weight") and "patch" not in name:
            return 0.02
        if name.endswith("positional_embedding.embedding"):
            return POSITION_DEVIATION
        if name.endswith("class_embedding"):
            return float(shape[-1] ** -0.5)
        return float((3 * math.prod(shape[1:])) ** -0.5)

    def __getitem__(self, name: str) -> Tensor:
        shape = self.shapes[name]
        if name.endswith(("gate_attn", "gate_ffn")):
            return torch.full(shape, math.pi / 4, device=self.device)
        if name.endswith(("gate", "bias")):
            return torch.zeros(shape, device=self.device)
        if "norm" in name:
            return torch.ones(shape, device=self.device)
        digest = hashlib.sha256(f"{self.seed}:{name}".encode()).digest()
        generator = torch.Generator(self.device).manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        return torch.randn(shape, generator=generator, device=self.device).mul_(self._deviation(name, shape))


def initialise_weights(
    chunks: Sequence[nn.Module], vision: nn.Module | None, config: VideoMllamaConfig, seed: int,
    device: torch.device | str = "cpu",
) -> None:  # fmt: skip
    """Draws all weights of the live model; equal for equal seeds whatever the parallel layout.

    Args:
        chunks: decoder chunks of this rank.
        vision: the encoder; None leaves it.
        config: of the model.
        seed: of the values.
        device: where they are drawn: see `RandomWeights`.
    """
    from model.conversion.live import load_hf_weights

    load_hf_weights(chunks, vision, RandomWeights(config, seed, device=device))


@torch.no_grad()
def set_cross_gates(chunks: Sequence[nn.Module], value: float) -> None:
    """Writes one value into every cross-attention gate of the decoder chunks."""
    for chunk in chunks:
        for name, parameter in chunk.named_parameters():
            if name.endswith(("cross_attn_attn_gate", "cross_attn_mlp_gate")):
                parameter.fill_(value)
