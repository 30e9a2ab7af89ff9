"""What is shown of a replayed global batch: micro-batches, their samples, and every token with mask, frames and loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from data_pipeline.inspect.preview.views import token_texts
from data_pipeline.packing.batch import IGNORE_INDEX, TOKEN_CLASSES, PackedMicroBatch
from data_pipeline.text.tokenizer import Tokenizer
from moss_train.replay.losses import TokenLosses
from moss_train.replay.run import ReplayedStep


@dataclass
class TokenRow:
    """One row of a sample, with what concerns its token as the target of the row before."""

    row: int
    """In the micro-batch."""
    id: int
    text: str
    """Empty for a row that continues the character of the one before."""
    token_class: str
    """One of `TOKEN_CLASSES`."""
    visible: tuple[int, int]
    """First frame of the micro-batch that the row may look at, and one past the last."""
    frame: int | None
    """Number in the micro-batch of the frame whose place this row is."""
    loss: float | None
    """Of predicting this token; None where it is no target or no model was run."""


@dataclass
class SampleRows:
    """One sample of a micro-batch, or its padding."""

    key: str
    """dataset/key; empty for padding."""
    dataset: str
    rows: tuple[int, int]
    frames: tuple[int, int]
    targets: int
    loss: float | None
    """Mean of the targets' losses."""
    tokens: list[TokenRow]


@dataclass
class MicroBatchView:
    """One micro-batch of the global batch."""

    number: int
    reader: int
    """Which of `data.global_data_workers` gave it."""
    samples: list[SampleRows]
    rows: int
    padding: int
    frames: int
    targets: int
    loss: float | None
    """Mean of the targets' losses."""


@dataclass
class StepView:
    """Everything that is printed and written about a step."""

    step: int
    run: str
    source: str
    size: int
    """Micro-batches in the global batch, shown or not."""
    micro_batches: list[MicroBatchView]
    equal: list[str]
    """What was found equal to the run."""
    notes: list[str]
    record: dict[str, Any] | None
    """The step's line of the run's metrics."""
    checkpoint: str | None = None
    checkpoint_step: int | None = None
    loss: float | None = None
    """Of the micro-batches shown, weighted as the run weights it."""
    class_loss: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def comparable(self) -> bool:
        """Whether the loss is the one that the run had in this step, up to rounding."""
        return self.checkpoint_step == self.step - 1 and len(self.micro_batches) == self.size and self.record is not None


def view_step(found: ReplayedStep, losses: TokenLosses | None = None) -> StepView:
    """Arrange a replayed step."""
    names = [dataset.name for dataset in found.config.data.datasets]
    rows = {} if losses is None else losses.rows
    parts = [
        _micro_batch(number, found.readers.get(number, -1), batch, found.tokenizer, names, rows.get(number))
        for number, batch in found.batches.items()
    ]
    view = StepView(
        step=found.step, run=str(found.folder.path), source=found.source, size=found.size, micro_batches=parts,
        equal=list(found.checks.equal), notes=list(found.checks.notes), record=found.record,
    )  # fmt: skip
    if losses is not None:
        view.checkpoint, view.checkpoint_step = str(losses.checkpoint), losses.checkpoint_step
        view.loss, view.class_loss = losses.loss, losses.class_loss
        if losses.checkpoint_step != found.step - 1:
            view.notes.append(
                f"losses are those of the weights behind step {losses.checkpoint_step}; the run had the weights behind step "
                f"{found.step - 1}"
            )
    return view


def _micro_batch(
    number: int, reader: int, batch: PackedMicroBatch, tokenizer: Tokenizer, names: Sequence[str], losses: torch.Tensor | None
) -> MicroBatchView:
    rows, frames = batch.cu_seqlens.tolist(), batch.cu_frames.tolist()
    samples = []
    for index, (key, dataset) in enumerate(zip(batch.sample_keys, batch.dataset_index, strict=True)):
        begin, end = rows[index : index + 2]
        counted = batch.targets[begin:end] != IGNORE_INDEX
        samples.append(
            SampleRows(
                key=key,
                dataset=names[dataset] if 0 <= dataset < len(names) else "",
                rows=(begin, end),
                frames=(frames[index], frames[index + 1]),
                targets=int(counted.sum()),
                loss=None if losses is None or not counted.any() else float(losses[begin:end][counted].mean()),
                tokens=_tokens(batch, begin, end, frames[index], tokenizer, losses) if key else [],
            )
        )
    counted = batch.targets != IGNORE_INDEX
    return MicroBatchView(
        number=number,
        reader=reader,
        samples=samples,
        rows=batch.num_rows,
        padding=sum(s.rows[1] - s.rows[0] for s in samples if not s.key),
        frames=batch.num_frames,
        targets=batch.num_targets,
        loss=None if losses is None or not counted.any() else float(losses[counted].mean()),
    )


def _tokens(
    batch: PackedMicroBatch, begin: int, end: int, first_frame: int, tokenizer: Tokenizer, losses: torch.Tensor | None
) -> list[TokenRow]:
    """Rows of one sample."""
    ids = batch.input_ids[begin:end].tolist()
    texts = token_texts(ids, tokenizer)
    places = _frame_places(batch, begin, end, first_frame)
    seen_from, seen_to = batch.frame_begin[begin:end].tolist(), batch.frame_end[begin:end].tolist()
    targets, classes = batch.targets[begin:end].tolist(), batch.token_class[begin:end].tolist()
    tokens = []
    for place, (token, text) in enumerate(zip(ids, texts, strict=True)):
        learned = place > 0 and targets[place - 1] != IGNORE_INDEX
        tokens.append(
            TokenRow(
                row=begin + place,
                id=token,
                text=text,
                token_class=TOKEN_CLASSES[classes[place - 1]] if learned else TOKEN_CLASSES[0],
                visible=(seen_from[place], seen_to[place]),
                frame=places.get(place),
                loss=float(losses[begin + place - 1]) if learned and losses is not None else None,
            )
        )
    return tokens


def _frame_places(batch: PackedMicroBatch, begin: int, end: int, first_frame: int) -> dict[int, int]:
    """Frame of the micro-batch by the row of the sample that is its place; dense samples have no such rows."""
    if batch.dense_labels is not None:
        return {}
    sample = batch.cu_seqlens.tolist().index(begin)
    last = int(batch.cu_frames[sample + 1])
    return {int(batch.frame_positions[frame]): frame for frame in range(first_frame, last)}


def as_json(view: StepView) -> dict[str, Any]:
    """Plain values: tokens of a sample become one list for each of their properties."""
    values = dataclasses.asdict(view)
    for part in values["micro_batches"]:
        for sample in part["samples"]:
            tokens = sample.pop("tokens")
            names = [f.name for f in dataclasses.fields(TokenRow) if f.name != "row"]
            sample["text"] = "".join(token["text"] for token in tokens)
            sample["tokens"] = {name: [token[name] for token in tokens] for name in names}
    return values
