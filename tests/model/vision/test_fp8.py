"""Which fp8 products a tower gets."""

from __future__ import annotations

import pytest
import torch

from model.errors import InputError
from model.vision.encoder import VisionEncoder
from model.vision.fp8 import use_fp8
from model.vision.fused.fp8_products import Fp8Products
from model.vision.fused.levels import use_layers
from model.vision.layers import VisionLayer
from tests.model.small import small_config


def _encoder(layers: str) -> VisionEncoder:
    encoder = VisionEncoder(small_config()).bfloat16()
    use_layers(encoder, layers)
    return encoder


@pytest.mark.parametrize(("way", "kind"), [("none", None), ("rows", "fp8"), ("rows_bf16", "bf16")])
def test_fused_layers_get_products_with_a_scale_for_each_row(way: str, kind: str | None) -> None:
    encoder = _encoder("fused")
    use_fp8(encoder, small_config(), way)
    products = [module.products for module in encoder.modules() if isinstance(module, VisionLayer)]
    assert len(products) == 4
    assert [p and p.weight_gradients for p in products] == [kind] * 4
    assert kind is None or all(isinstance(p, Fp8Products) for p in products)


@pytest.mark.skipif(torch.cuda.is_available(), reason="auto fuses layers on CUDA")
@pytest.mark.parametrize("layers", ["torch", "auto"])
def test_layers_that_would_not_multiply_in_fp8_are_refused(layers: str) -> None:
    with pytest.raises(InputError, match=r"fp8_vision is on, but the tower's layers are not fused here.*vision\.layers=torch"):
        use_fp8(_encoder(layers), small_config(), "rows")


def test_an_unknown_way_is_named() -> None:
    with pytest.raises(InputError, match="fp8_vision is 'row'; use one of none, rows, rows_bf16, linears"):
        use_fp8(_encoder("fused"), small_config(), "row")
