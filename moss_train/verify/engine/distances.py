"""Layer by layer: how far each variant is from fp32, with the same weights, rows and frames."""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.fp8_utils import get_fp8_context
from torch import Tensor

from model.conversion import gather_hf_weights, load_hf_weights
from model.rows import PackedRows
from moss_train.parallel.layout import ParallelLayout
from moss_train.verify.engine.subject import (
    ALL_FP8,
    CURRENT,
    DELAYED,
    ENGINE,
    REFERENCE,
    TORCH,
    Variant,
    build,
    check_config,
    learnable_pack,
    lively_weights,
)

VARIANTS = (TORCH, ENGINE, DELAYED, CURRENT, ALL_FP8)
SAMPLES = ((144, 5), (80, 3), (32, 0))
"""Three samples in one pack, one without frames."""


def distance(value: Tensor, reference: Tensor) -> float:
    """|value - reference| / |reference|, norms over all elements in fp64."""
    return float((value.double() - reference.double()).norm() / reference.double().norm().clamp_min(1e-30))


class Replay:
    """One variant's forward and backward pass, with what went into and came out of each decoder layer."""

    def __init__(self, variant: Variant, layout: ParallelLayout) -> None:
        config = check_config()
        self.variant = variant
        models = build(config, variant, layout)
        load_hf_weights(models.chunks, models.vision, lively_weights(config))
        self.decoder: Any = models.chunks[0]
        pack = learnable_pack(config, 5, SAMPLES)
        rows = PackedRows.of(pack, layout.device)
        shape = (pack.num_frames, *models.state_shape)
        states = torch.randn(shape, generator=torch.Generator().manual_seed(3)).bfloat16().to(layout.device, models.dtype)
        self.states = states.requires_grad_()
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.keywords: list[dict[str, Any]] = []
        hooks = [layer.register_forward_hook(self._note, with_kwargs=True) for layer in self.decoder.decoder.layers]
        if variant.fp8 == "delayed":  # scales come from passes before
            self.decoder(rows, self.states).sum().backward()
            self.decoder.zero_grad()
            self.states.grad = None
            del self.inputs[:], self.outputs[:], self.keywords[:]
        losses: Tensor = self.decoder(rows, self.states)
        for hook in hooks:
            hook.remove()
        losses.sum().backward()  # type: ignore[no-untyped-call]
        self.losses = losses.detach()
        gradients = gather_hf_weights([self.decoder], None, read=lambda p: torch.zeros_like(p) if p.grad is None else p.grad)
        assert gradients is not None and self.states.grad is not None
        self.gradients = {**gradients, "frame states": self.states.grad.cpu()}

    def _note(self, layer: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        self.inputs.append(kwargs["hidden_states"].detach())
        self.outputs.append(output[0].detach())
        self.keywords.append({k: v for k, v in kwargs.items() if k != "hidden_states"})

    @torch.no_grad()
    def alone(self, index: int, hidden: Tensor, context: Tensor) -> Tensor:
        """What one layer adds to the given hidden states."""
        dtype = self.states.dtype
        keywords = {**self.keywords[index], "context": context.to(dtype)}
        with get_fp8_context(self.decoder.config):
            output: Tensor = self.decoder.decoder.layers[index](hidden_states=hidden.to(dtype), **keywords)[0]
        return output.double() - hidden.to(dtype).double()


def measure(layout: ParallelLayout) -> dict[str, Any]:
    """Distances from fp32 of every variant: bf16 with torch's modules and with Transformer Engine's, and fp8.

    Returns:
        `layers`: of every layer the distance of its output after all layers before it (`output`), and of what it adds to the
        fp32 model's own input, rounded to bf16 (`alone`); `losses`; `gradients` by published name; `all gradients` together.
    """
    reference = Replay(REFERENCE, layout)
    others = {variant.name: Replay(variant, layout) for variant in VARIANTS}
    layers = []
    for index, expected in enumerate(reference.outputs):
        rounded, context = reference.inputs[index].bfloat16(), reference.states.detach()
        own = reference.alone(index, rounded.float(), context)
        layers.append({
            "layer": index,
            "kind": "cross" if index in check_config().text.cross_attention_layers else "self",
            "output": {name: distance(replay.outputs[index], expected) for name, replay in others.items()},
            "alone": {name: distance(replay.alone(index, rounded, context), own) for name, replay in others.items()},
        })  # fmt: skip
    return {
        "layers": layers,
        "losses": {name: distance(replay.losses, reference.losses) for name, replay in others.items()},
        "gradients": {
            tensor: {name: distance(replay.gradients[tensor], gradient) for name, replay in others.items()}
            for tensor, gradient in reference.gradients.items()
            if gradient.any()
        },
        "all gradients": {name: distance(_joined(replay), _joined(reference)) for name, replay in others.items()},
    }


def _joined(replay: Replay) -> Tensor:
    return torch.cat([gradient.flatten().double() for gradient in replay.gradients.values()])
