"""What the page shows of a sample: its frames, its tokens row by row, and a timed dialogue second by second."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from PIL import Image

from data_pipeline.packing.batch import TOKEN_CLASSES
from data_pipeline.packing.plan import SamplePlan
from data_pipeline.text.labels import IGNORED, SILENCE
from data_pipeline.text.tokenizer import Tokenizer

_HEADER = re.compile(r"<\|start_header_id\|>(\w*)<\|end_header_id\|>\n\n")
_SPECIAL = re.compile(r"<\|[^|<>\s]{1,40}\|>")


@dataclass
class FrameView:
    """One frame as the model sees it: fitted into its square."""

    number: int
    time: float
    """Seconds from the start of its file."""
    file: str
    image: str
    """Data URI of a JPEG."""


@dataclass
class TokenView:
    """One row of the sequence."""

    row: int
    id: int
    text: str
    """Empty for a row that continues the character of the one before."""
    token_class: str
    """ignored | text | silence | first_answer: how this token is learned (as the target of the row before it)."""
    visible: int
    """Frames that the row may look at: numbers 0 to visible - 1."""
    frame: int | None
    """Number of the frame whose place this row is."""

    @property
    def title(self) -> str:
        seen = {0: "sees no frame", 1: "sees frame 0"}.get(self.visible, f"sees frames 0 to {self.visible - 1}")
        learned = "not learned" if self.token_class == "ignored" else f"learned: {self.token_class.replace('_', ' ')}"
        return f"row {self.row} · id {self.id} · {learned} · {seen}"


@dataclass
class Column:
    """What happens at one frame of a timed dialogue, or between two: a frame with what is said behind it, or a prompt."""

    frame: int | None
    said: str = ""
    silent: bool = False
    prompt: str = ""


@dataclass
class SampleView:
    """Everything about a sample."""

    key: str
    where: str
    facts: list[tuple[str, str]]
    """Name and value."""
    frames: list[FrameView] = field(default_factory=list)
    tokens: list[TokenView] = field(default_factory=list)
    columns: list[Column] = field(default_factory=list)
    """Only of timed dialogues."""
    left_out: str = ""
    """Why the loader would leave the sample out; nothing else is shown then."""


def frame_views(plan: SamplePlan, frames: torch.Tensor, files: Sequence[str], side: int) -> list[FrameView]:
    """Thumbnails.

    Args:
        frames: uint8 [F, 3, size, size].
        files: name of each media file.
        side: pixels of a thumbnail; smaller frames keep their size.
    """
    views = []
    for number, (slot, pixels) in enumerate(zip(plan.slots, frames, strict=True)):
        views.append(FrameView(number, slot.time, files[slot.media], _jpeg(pixels, side)))
    return views


def token_views(plan: SamplePlan, tokenizer: Tokenizer) -> list[TokenView]:
    """One view a row."""
    rows = plan.rows
    visible = rows.visible_frames if plan.dense is None else [0] * plan.num_rows
    places = {int(row): number for number, row in enumerate(rows.frame_rows)} if plan.dense is None else {}
    texts = token_texts([int(i) for i in rows.input_ids], tokenizer)
    views = []
    for row, (token, text) in enumerate(zip(rows.input_ids, texts, strict=True)):
        kind = TOKEN_CLASSES[plan.classes[row - 1] if row else IGNORED]
        views.append(TokenView(row, int(token), text, kind, int(visible[row]), places.get(row)))
    return views


def timeline(tokens: Sequence[TokenView]) -> list[Column]:
    """A timed dialogue: one column a frame, and one for each prompt that comes between."""
    columns: list[Column] = []
    read = ""
    for token in tokens:
        if token.frame is not None or token.token_class != "ignored":
            if columns and (prompt := _prompt(read)):
                columns.append(Column(None, prompt=prompt))
            read = ""
        if token.frame is not None:
            columns.append(Column(token.frame))
        elif token.token_class == TOKEN_CLASSES[SILENCE]:
            columns = columns or [Column(None)]
            columns[-1].silent = True
        elif token.token_class != "ignored":
            columns = columns or [Column(None)]
            columns[-1].said += token.text
        else:
            read += token.text
    return columns


def _prompt(read: str) -> str:
    """The user's words of the rows that are only read."""
    parts = _HEADER.split(read)  # text, role, text, role, text ...
    words = [text for role, text in zip(parts[1::2], parts[2::2], strict=True) if role == "user"]
    return " ".join(_SPECIAL.sub("", text).strip() for text in words).strip()


def token_texts(ids: Sequence[int], tokenizer: Tokenizer) -> list[str]:
    """Text of each token; bytes of one character come with the first of its tokens."""
    texts: list[str] = []
    begin = 0
    while begin < len(ids):
        end = begin + 1
        text = tokenizer.decode(ids[begin:end])
        while "\ufffd" in text and end < min(begin + 4, len(ids)):
            end += 1
            text = tokenizer.decode(ids[begin:end])
        if "\ufffd" in text:
            end, text = begin + 1, tokenizer.decode(ids[begin : begin + 1])
        texts += [text] + [""] * (end - begin - 1)
        begin = end
    return texts


def _jpeg(pixels: torch.Tensor, side: int) -> str:
    picture = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    if picture.width > side:
        picture = picture.resize((side, side), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
