"""Qwen2.5-VL with random weights out of the installed transformers, for numbers of the same minute on the same device."""

from __future__ import annotations

from typing import Any

import torch

from model.errors import InputError

IMAGE_START, VIDEO_PAD = 151652, 151656
"""Its own ids: what opens a picture, and what stands for one visual token of a video."""

SEVEN_B = {
    "text": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "max_position_embeddings": 128000,
        "rope_theta": 1000000.0,
        "rope_scaling": {"type": "mrope", "rope_type": "default", "mrope_section": [16, 24, 24]},
        "tie_word_embeddings": False,
    },
    "vision": {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584,
               "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31]},
}  # fmt: skip
"""As published."""
TINY = {
    "text": {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 151680,
        "rope_scaling": {"type": "mrope", "rope_type": "default", "mrope_section": [2, 3, 3]},
        "tie_word_embeddings": False,
    },
    "vision": {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 64,
               "fullatt_block_indexes": [1]},
}  # fmt: skip
"""For a CPU."""


class Peer:
    """The model and one question about one video.

    Args:
        sizes: `SEVEN_B` or `TINY`.
        grid: pairs of frames, patches down, patches across.
        text_rows: of the question.
        device: where it is built and runs.
        dtype: of weights and pixels.
        attention: of transformers: sdpa, flash_attention_2 or eager.

    Raises:
        InputError: transformers is not installed or has no such model.
    """

    def __init__(
        self,
        sizes: dict[str, dict[str, Any]],
        grid: tuple[int, int, int],
        text_rows: int,
        device: torch.device,
        dtype: torch.dtype,
        attention: str = "sdpa",
    ) -> None:
        try:
            from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
        except ImportError as error:
            raise InputError(f"transformers has no Qwen2.5-VL here ({error}); pip install 'transformers>=4.51'") from error
        config = Qwen2_5_VLConfig(text_config=sizes["text"], vision_config=sizes["vision"])
        config._attn_implementation = attention
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            with torch.device(device):
                self.model = Qwen2_5_VLForConditionalGeneration(config).eval()
        finally:
            torch.set_default_dtype(before)
        vision = config.vision_config
        patches, merge = grid[0] * grid[1] * grid[2], vision.spatial_merge_size**2
        self.visual_tokens = patches // merge
        width = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        words = torch.randint(0, 1000, (text_rows,))
        ids = torch.cat([words[: text_rows // 2], torch.tensor([IMAGE_START]), torch.full((self.visual_tokens,), VIDEO_PAD),
                         words[text_rows // 2 :]])  # fmt: skip
        self.inputs = {
            "input_ids": ids[None].to(device),
            "attention_mask": torch.ones(1, len(ids), dtype=torch.int64, device=device),
            "pixel_values_videos": torch.randn(patches, width, device=device, dtype=dtype),
            "video_grid_thw": torch.tensor([grid], device=device),
            "mm_token_type_ids": 2 * (ids == VIDEO_PAD).int()[None].to(device),
        }

    @torch.inference_mode()
    def generate(self, tokens: int) -> int:
        """Greedy tokens after the question, exactly so many; from pixels, nothing cached."""
        given = self.inputs
        out = self.model.generate(**given, do_sample=False, max_new_tokens=tokens, min_new_tokens=tokens, use_cache=True)
        return int(out.shape[1] - given["input_ids"].shape[1])
