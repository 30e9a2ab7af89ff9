"""Folders in the Hugging Face layout for the tests of conversion."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from model.config import VideoMllamaConfig
from model.conversion.folder import write_hf_folder
from tests.model.small import lively_weights, small_config, with_text


def published_folder(path: Path, config: VideoMllamaConfig | None = None, **options: object) -> Path:
    """A bf16 folder in which nothing is neutral."""
    config = config or small_config(rope_inv_freq_dtype="bf16")
    weights = {name: tensor.bfloat16() for name, tensor in lively_weights(config, 1).items()}
    return write_hf_folder(path, weights, config, **options)  # type: ignore[arg-type]


def three_way_config() -> VideoMllamaConfig:
    """Divisible by 3, so that three ranks pad the vocabulary to more rows than one does."""
    return with_text(small_config(), hidden_size=48, num_attention_heads=6, num_key_value_heads=3)


def stock_config(config: VideoMllamaConfig) -> dict[str, object]:
    """config.json as the stock Instruct model has it: nothing of pooling, several ending tokens, generation defaults."""
    text, vision = config.text, config.vision
    return {
        "architectures": ["MllamaForConditionalGeneration"], "image_token_index": text.vocab_size, "model_type": "mllama",
        "torch_dtype": "bfloat16", "transformers_version": "4.45.0.dev0",
        "text_config": {
            "_name_or_path": "", "add_cross_attention": False, "bos_token_id": text.bos_token_id,
            "cross_attention_layers": list(text.cross_attention_layers), "dropout": 0,
            "eos_token_id": [text.eos_token_id, 8, 9], "hidden_act": "silu", "hidden_size": text.hidden_size,
            "initializer_range": 0.02, "intermediate_size": text.intermediate_size, "max_length": 20,
            "max_position_embeddings": text.max_position_embeddings, "model_type": "mllama_text_model",
            "num_attention_heads": text.num_attention_heads, "num_hidden_layers": text.num_hidden_layers,
            "num_key_value_heads": text.num_key_value_heads, "pad_token_id": text.pad_token_id, "rms_norm_eps": 1e-05,
            "rope_scaling": {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                             "original_max_position_embeddings": 8192, "rope_type": "llama3"},
            "rope_theta": 500000.0, "tie_word_embeddings": False, "torch_dtype": "bfloat16", "use_cache": True,
            "vocab_size": text.vocab_size,
        },
        "vision_config": {
            "attention_heads": vision.num_attention_heads, "hidden_act": "gelu", "hidden_size": vision.hidden_size,
            "image_size": vision.image_size, "intermediate_layers_indices": list(vision.intermediate_layers_indices),
            "intermediate_size": vision.intermediate_size, "max_num_tiles": vision.max_num_tiles,
            "model_type": "mllama_vision_model", "norm_eps": 1e-05, "num_channels": 3,
            "num_global_layers": vision.num_global_layers, "num_hidden_layers": vision.num_hidden_layers,
            "patch_size": vision.patch_size, "supported_aspect_ratios": [[1, 1], [1, 2]],
            "torch_dtype": "bfloat16", "vision_output_dim": vision.output_dim,
        },
    }  # fmt: skip


def make_foreign(folder: Path, content: dict[str, object]) -> None:
    """Gives a folder the config.json of another program, and the files that such folders hold besides."""
    (folder / "config.json").write_text(json.dumps(content))
    (folder / "certificate.json").unlink(missing_ok=True)
    (folder / "README.md").write_text("# A model")
    (folder / "original").mkdir()
    (folder / "original" / "params.json").write_text("{}")
    (folder / "modeling_video_mllama.py").write_text("raise SystemExit('remote code is never run')\n")


def four_by_four(config: VideoMllamaConfig) -> VideoMllamaConfig:
    """The config with the pooling that a config.json stands for which says nothing of it."""
    return dataclasses.replace(config, vision=dataclasses.replace(config.vision, pool_mode="average", pool_stride=4))
