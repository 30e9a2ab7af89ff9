"""The training decoder on megatron-core: embedding, Llama and gated cross layers, head, losses."""

from __future__ import annotations

from typing import Any

import torch
from megatron.core import parallel_state, tensor_parallel
from megatron.core.models.common.embeddings.language_model_embedding import LanguageModelEmbedding
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from model.attention.context import restore_order
from model.attention.cores import PackedRowParams
from model.attention.plan import RowPlan, make_plan
from model.config import VideoMllamaConfig
from model.errors import InputError
from model.head_loss import HeadLoss
from model.lora.state import shard_adapter_state
from model.loss import mask_padded_columns, row_losses
from model.rows import PackedRows, frame_share
from model.text.layers import stage_block
from model.text.provider import ModuleProvider, torch_provider
from model.text.transformer_config import make_transformer_config
from model.vocabulary import padded_rows

__all__ = ["VideoMllamaDecoder", "build_decoder_chunks", "make_transformer_config"]


class VideoMllamaDecoder(GPTModel):
    """One pipeline chunk of the decoder. The frames' states come from outside, as a leaf on every stage.

    Under any layout every tensor-parallel rank is handed the same whole `frame_states` and its `.grad` is complete on
    each of them (take one copy, do not sum); pipeline stages and virtual chunks hold partial gradients (sum them;
    a stage without cross layers leaves None). Under context parallelism a rank is handed `frame_share` of the frames
    alone, and the gradient of its share is complete.
    """

    def __init__(
        self, config: VideoMllamaConfig, transformer_config: TransformerConfig, *, pre_process: bool, post_process: bool,
        vp_stage: int | None = None, provider: ModuleProvider | None = None,
    ) -> None:  # fmt: skip
        text, tensor = config.text, transformer_config.tensor_model_parallel_size
        super().__init__(
            transformer_config,
            stage_block(transformer_config, text.cross_attention_layers, provider or torch_provider(), vp_stage),
            vocab_size=padded_rows(text.vocab_size, tensor),
            max_sequence_length=text.max_position_embeddings,
            pre_process=pre_process,
            post_process=post_process,
            share_embeddings_and_output_weights=False,
            position_embedding_type="none",
            vp_stage=vp_stage,
        )
        self.model_config = config
        kept = getattr(transformer_config, "head_logits_bytes", None)
        self.head_loss = None if kept is None else HeadLoss(text.vocab_size, kept)
        if pre_process:
            # The embedding has rows (the image token first) that the head lacks; GPTModel knows one size only.
            self.embedding = LanguageModelEmbedding(
                config=transformer_config,
                vocab_size=padded_rows(text.embedding_rows, tensor),
                max_sequence_length=text.max_position_embeddings,
                position_embedding_type="none",
                tp_group=self.pg_collection.tp,
            )

    def _embed(self, input_ids: Tensor) -> Tensor:
        """input_ids int64 [T] of this context rank -> [T, 1, H], or its share of the rows under sequence parallelism."""
        tensor = self.pg_collection.tp.size()
        if self.config.sequence_parallel and len(input_ids) % tensor:
            raise InputError(
                f"the micro-batch has {len(input_ids)} rows here, not a multiple of parallel.tensor {tensor}: "
                "with parallel.sequence_parallel choose a stage.sequence_length that is"
            )
        hidden: Tensor = self.embedding(input_ids=input_ids[None], position_ids=None)
        return hidden

    def _losses(self, hidden: Tensor, targets: Tensor, plan: RowPlan) -> Tensor:
        """hidden [T, 1, H] -> fp32 [T]. The head runs on the rows that have a target only."""
        if self.head_loss is None:
            chosen = None if self.config.sequence_parallel else plan.target_rows
        else:
            chosen, hidden = plan.target_rows, self._all_rows(hidden)
        if chosen is not None:
            hidden, targets = hidden.index_select(0, chosen), targets.index_select(0, chosen)
        if self.head_loss is None:
            losses = row_losses(self._logits(hidden), targets, self.pg_collection.tp)
        else:
            losses = self.head_loss(hidden[:, 0], self.output_layer.weight, targets, self.pg_collection.tp)
        if chosen is None:
            return losses
        return losses.new_zeros(plan.num_rows).index_copy(0, chosen, losses)

    def _all_rows(self, hidden: Tensor) -> Tensor:
        """What enters the head [T, 1, H] on every tensor-parallel rank, whose gradients are summed behind it."""
        group = self.pg_collection.tp
        if self.config.sequence_parallel:
            rows: Tensor = tensor_parallel.gather_from_sequence_parallel_region(hidden, True, group)
            return rows
        copied: Tensor = tensor_parallel.copy_to_tensor_model_parallel_region(hidden, group)
        return copied

    def _logits(self, hidden: Tensor) -> Tensor:
        """hidden [T, 1, H] -> [T, columns of this rank]."""
        logits, _ = self.output_layer(hidden)
        return mask_padded_columns(logits[:, 0], self.model_config.text.vocab_size, self.pg_collection.tp.rank())

    def forward(self, rows: PackedRows, frame_states: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """One micro-batch through this chunk.

        Args:
            rows: the packed rows, the same on every rank of the model-parallel group; under context parallelism from
                `model.context_rows.share_rows`.
            frame_states: [F, P, H] in the parameters' dtype, or None where the micro-batch has no frames. Under context
                parallelism the frames of `model.rows.frame_share`, an empty tensor where this rank has none of them;
                either all ranks' shares ask for a gradient or none.

        Returns:
            Hidden states [T, 1, H] of the next stage; on the last stage fp32 losses [T] (0 where there is no
            target), or logits [T, vocab_size] if `rows.targets` is None. Under context parallelism hidden states and
            losses are of this rank's rows alone (`context_rows.zigzag_rows`); logits are of all rows, in order.

        Raises:
            InputError: frame states that do not match the rows, or rows that sequence parallelism cannot split.
        """
        group = self.pg_collection.cp
        first, last = frame_share(rows.num_frames, group.size(), group.rank())
        frames = 0 if frame_states is None else frame_states.shape[0]
        if frames != last - first or (frame_states is None and rows.num_frames > 0):
            share = f", of which {last - first} are this rank's," if group.size() > 1 else ""
            raise InputError(
                f"the micro-batch has {rows.num_frames} frames{share} but {frames} frame states were handed to the decoder"
            )
        plan = make_plan(rows, self.model_config, self.config.params_dtype, group)
        own = None if plan.context is None else plan.context.own_rows
        embedded = self._embed(rows.input_ids if own is None else rows.input_ids[own]) if self.pre_process else None
        if embedded is not None and self.config.recompute_granularity == "full" and torch.is_grad_enabled():
            # A layer that is computed again gets gradients only if its input asks for one; a frozen embedding does not.
            embedded.requires_grad_()
        hidden: Tensor = self.decoder(
            hidden_states=embedded,
            attention_mask=None,
            context=frame_states if rows.num_frames else None,
            packed_seq_params=PackedRowParams.of(rows, plan),
        )
        if not self.post_process:
            return hidden
        if rows.targets is not None:
            return self._losses(hidden, rows.targets if own is None else rows.targets[own], plan)
        shares = self._logits(hidden)
        logits: Tensor = tensor_parallel.gather_from_tensor_model_parallel_region(shares, group=self.pg_collection.tp)
        logits = logits[:, : self.model_config.text.vocab_size]
        return logits if plan.context is None else restore_order(logits, plan.context)

    def sharded_state_dict(
        self, prefix: str = "", sharded_offsets: tuple[Any, ...] = (), metadata: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """megatron-core's, with every layer under its own key since the layers are of two kinds."""
        metadata = {**(metadata or {}), "non_homogeneous_layers": True}
        state: dict[str, Any] = super().sharded_state_dict(prefix, sharded_offsets, metadata)
        shard_adapter_state(self, state, prefix)
        head = state.get(f"{prefix}output_layer.weight")
        if head is not None:
            # Another tensor-parallel size may pad the vocabulary to another number of rows.
            head.allow_shape_mismatch = True
        return state


def build_decoder_chunks(
    config: VideoMllamaConfig, transformer_config: TransformerConfig, provider: ModuleProvider | None = None
) -> list[VideoMllamaDecoder]:
    """The chunks of this rank, one for each virtual stage; megatron-core's parallel state must be initialised.

    Weights are megatron-core's own initialisation: load real ones or call `model.initialise.initialise_weights`,
    which does not depend on the layout.
    """
    virtual = transformer_config.virtual_pipeline_model_parallel_size
    chunks = []
    for stage in range(virtual or 1):
        vp_stage = stage if virtual else None
        chunks.append(
            VideoMllamaDecoder(
                config,
                transformer_config,
                pre_process=parallel_state.is_pipeline_first_stage(ignore_virtual=False, vp_stage=vp_stage),
                post_process=parallel_state.is_pipeline_last_stage(ignore_virtual=False, vp_stage=vp_stage),
                vp_stage=vp_stage,
                provider=provider,
            )
        )
    if not torch.cuda.is_available():
        return chunks
    return [chunk.cuda() for chunk in chunks]
