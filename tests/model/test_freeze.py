"""Presets by exact module: names and counts."""

from __future__ import annotations

import re

import pytest

from model.config import TextConfig, VideoMllamaConfig, VisionConfig
from model.conversion.table import hf_shapes
from model.errors import InputError
from model.freeze import PARTS, PRESETS, apply_preset, part_parameters, trains_any
from model.vision.encoder import VisionEncoder
from tests.model.conftest import BuildDecoder
from tests.model.small import lively_weights, small_config, with_text

LONG = with_text(small_config(), num_hidden_layers=14, cross_attention_layers=(1, 3, 11, 13))
"""Indices of which one is the beginning of another: a match by substring would freeze or train the wrong layers."""

EXPECTED = {
    "projector_only": r"multi_modal_projector\.",
    "vision+projector+xattn": r"(multi_modal_projector\.|vision_model\.|decoder\.layers\.(1|3|11|13)\.)",
    "all": r"",
    "vision_tower": r"vision_model\.",
    "text_only": r"(embedding|output_layer|decoder\.final_layernorm|decoder\.layers\.(0|2|4|5|6|7|8|9|10|12)\.)",
}


@pytest.mark.parametrize("preset", list(PRESETS))
def test_a_preset_trains_exactly_its_modules(build_decoder: BuildDecoder, preset: str) -> None:
    decoder, vision = build_decoder(LONG, lively_weights(LONG, 1)), VisionEncoder(LONG)
    apply_preset("all", [decoder], vision)
    apply_preset(preset, [decoder], vision)
    named = [*decoder.named_parameters(), *vision.named_parameters()]
    trained = {n for n, p in named if p.requires_grad}
    assert trained == {n for n, _ in named if re.match(EXPECTED[preset], n)}
    assert trains_any(vision.parameters()) == (preset != "text_only")


def test_the_parts_are_disjoint_and_complete(build_decoder: BuildDecoder) -> None:
    decoder, vision = build_decoder(LONG, lively_weights(LONG, 1)), VisionEncoder(LONG)
    found = [id(p) for part in PARTS for p in part_parameters(part, [decoder], vision)]
    assert len(found) == len(set(found))
    assert set(found) == {id(p) for m in (decoder, vision) for p in m.parameters()}


def test_trainable_counts_of_the_published_sizes() -> None:
    config = VideoMllamaConfig(vision=VisionConfig(), text=TextConfig())
    sizes: dict[str, int] = {}
    for name, shape in hf_shapes(config).items():
        layer = re.match(r"language_model\.model\.layers\.(\d+)\.", name)
        part = "cross" if layer and int(layer[1]) in config.text.cross_attention_layers else name.split(".")[0]
        count = 1
        for n in shape:
            count *= n
        sizes[part] = sizes.get(part, 0) + count
    assert sizes["multi_modal_projector"] == 31_461_376
    assert sizes["vision_model"] + sizes["multi_modal_projector"] + sizes["cross"] == 2_639_926_819


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(InputError, match=r"stage\.trainable is 'xattn'"):
        apply_preset("xattn", [], None)
