"""megatron-core's configuration from ours, with every size that does not fit refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.transformer.transformer_config import TransformerConfig

from model.attention.cross.attention import check_training
from model.config import VideoMllamaConfig
from model.errors import InputError
from model.fp8 import check_decoder_widths
from model.head_loss import GIB
from model.text.attention_backend import attention_backend
from model.text.stages import check_parallel, check_stage_layers, layers_per_stage

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def _pipeline_layout(num_layers: int, stages: int, stage_layers: Sequence[int] | None) -> list[list[str]]:
    counts = layers_per_stage(num_layers, stages) if stage_layers is None else stage_layers
    layout = [["decoder"] * count for count in counts]
    layout[0].insert(0, "embedding")
    layout[-1].append("loss")
    return layout


def _fp8_settings(fp8: str) -> dict[str, Any]:
    """megatron-core's settings of a scaling recipe; E4M3 forward and E5M2 for gradients."""
    if fp8 == "none":
        return {}
    return {
        "fp8": "hybrid",
        "fp8_recipe": "delayed" if fp8 == "delayed" else "tensorwise",
        "fp8_amax_history_len": 1024,
        "fp8_amax_compute_algo": "max",
        # Replicas do not share magnitudes: where only cross layers or the projector train, a replica without frames has no
        # backward pass, and the others would wait for it. The ranks of one replica have the same micro-batch.
        "tp_only_amax_red": True,
    }


def make_transformer_config(
    config: VideoMllamaConfig, *, tensor: int = 1, pipeline: int = 1, virtual_pipeline: int = 1, context: int = 1,
    sequence_parallel: bool = False, dtype: str | torch.dtype = "fp32", recompute: str = "none",
    recompute_layers: int | None = None, stage_layers: Sequence[int] | None = None, fp8: str = "none",
    cross_attention: str = "auto", head_logits_gib: float | None = 1.0,
) -> TransformerConfig:  # fmt: skip
    """The decoder's configuration for a parallel layout.

    Args:
        config: the model.
        tensor, pipeline, virtual_pipeline, context: sizes of the parallel groups.
        sequence_parallel: shard norms and residuals over the tensor-parallel group; without effect at tensor 1.
        dtype: fp32 | bf16, of parameters and activations.
        recompute: none | full; full keeps only the input of every layer for the backward pass.
        recompute_layers: with full, that many layers of every stage, from its first; None: all.
        stage_layers: layers of every pipeline stage, virtual ones included, in the order of the layers; None splits
            them evenly.
        fp8: none | delayed | current, scaling recipe of the products; needs Transformer Engine's modules.
        cross_attention: backend of `model.attention.cross.attention.cross_attention`.
        head_logits_gib: GiB of logits that stay until the backward pass, see `model.head_loss`; None computes all of them at
            once, in the head's own forward pass.

    Raises:
        InputError: a size that does not divide what it has to, stages that do not fit the layers, or a backend that does not
            run here, named.
    """
    text = config.text
    check_parallel(text, tensor, pipeline, virtual_pipeline)
    if cross_attention in ("varlen", "dense") and context > 1:
        raise InputError(
            f"attention.cross is {cross_attention} with parallel.context {context}, but its partial results cannot be merged "
            "over ranks; use attention.cross=auto"
        )
    if fp8 != "none":
        check_decoder_widths(config, tensor)
    params_dtype = DTYPES[dtype] if isinstance(dtype, str) else dtype
    check_training(cross_attention, torch.device("cuda" if torch.cuda.is_available() else "cpu"), params_dtype, text.head_dim)
    interleaved = virtual_pipeline > 1
    stages = pipeline * virtual_pipeline
    if stage_layers is not None:
        check_stage_layers(text.num_hidden_layers, stages, stage_layers)
    layout = _pipeline_layout(text.num_hidden_layers, stages, stage_layers) if pipeline > 1 else None
    full = recompute == "full"
    made = TransformerConfig(
        num_layers=text.num_hidden_layers,
        hidden_size=text.hidden_size,
        num_attention_heads=text.num_attention_heads,
        num_query_groups=text.num_key_value_heads,
        kv_channels=text.head_dim,
        ffn_hidden_size=text.intermediate_size,
        normalization="RMSNorm",
        layernorm_epsilon=text.rms_norm_eps,
        activation_func=F.silu,
        gated_linear_unit=True,
        add_bias_linear=False,
        # Only the cross layers norm queries and keys; the flag makes megatron-core sum those weights' gradients over
        # the tensor-parallel group, where each rank sees its own heads only.
        qk_layernorm=True,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        params_dtype=params_dtype,
        pipeline_dtype=params_dtype,
        bf16=params_dtype == torch.bfloat16,
        use_cpu_initialization=not torch.cuda.is_available(),
        tensor_model_parallel_size=tensor,
        pipeline_model_parallel_size=pipeline,
        context_parallel_size=context,
        virtual_pipeline_model_parallel_size=virtual_pipeline if interleaved else None,
        pipeline_model_parallel_layout=layout,
        sequence_parallel=sequence_parallel and tensor > 1,
        # Two sends between the same pair are mixed up by batched transfers, and a freed output may still be in flight.
        overlap_p2p_comm=interleaved,
        batch_p2p_comm=not interleaved,
        deallocate_pipeline_outputs=False,
        # The loss is a sum and a count, which the step divides by: megatron-core must not average.
        calculate_per_token_loss=True,
        gradient_accumulation_fusion=False,
        masked_softmax_fusion=False,
        attention_backend=attention_backend(params_dtype),
        bias_dropout_fusion=False,
        bias_activation_fusion=False,
        persist_layer_norm=False,
        cuda_graph_scope=[],
        apply_rope_fusion=False,
        recompute_granularity="full" if full else None,
        recompute_method=("uniform" if recompute_layers is None else "block") if full else None,
        recompute_num_layers=(recompute_layers or 1) if full else None,
        **_fp8_settings(fp8),
    )
    made.cross_attention_backend = cross_attention  # type: ignore[attr-defined]
    made.head_logits_bytes = None if head_logits_gib is None else head_logits_gib * GIB  # type: ignore[attr-defined]
    return made
