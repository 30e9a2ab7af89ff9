"""What the terminal shows of a step."""

from __future__ import annotations

import io

from rich.console import Console

from data_pipeline.packing.batch import TOKEN_CLASSES
from moss_train.replay.terminal import STYLES, show
from moss_train.replay.views import MicroBatchView, SampleRows, StepView, TokenRow


def view() -> StepView:
    """One sample of a frame, a word that is read, and a word of each learned class."""
    tokens = [TokenRow(0, 9, "ask\n", "ignored", (0, 0), None, None), TokenRow(1, 5, "<|video|>", "ignored", (2, 3), 2, None)]
    learned = [TokenRow(2 + i, i, f"word{i}[b]", name, (2, 3), None, float(i)) for i, name in enumerate(TOKEN_CLASSES[1:])]
    sample = SampleRows("set/key", "set", (0, 6), (2, 3), 4, 1.5, tokens + learned)
    padding = SampleRows("", "", (6, 8), (3, 3), 0, None, [])
    part = MicroBatchView(1, 3, [sample, padding], 8, 2, 3, 4, 1.5)
    found = StepView(7, "runs/x", "read again", 2, [part], ["keys"], ["a note"], {"loss": 1.5}, "c/step_6", 6, 1.5, {"text": 1.5})
    assert not found.comparable  # one of two micro-batches
    return found


def printed(text: bool) -> str:
    console = Console(file=io.StringIO(), width=160)
    show(view(), console, text=text)
    out: str = console.file.getvalue()  # type: ignore[attr-defined]
    return out


def test_every_class_of_token_has_a_style() -> None:
    assert set(STYLES) == set(TOKEN_CLASSES)


def test_text_mask_frames_and_losses_are_shown() -> None:
    out = printed(text=True)
    assert "ask⏎" in out and "▣ 2 ⟨2–2⟩word0[b]" in out  # brackets of a text are no markup
    assert "equal to the run: keys" in out and "note: a note" in out
    assert "25%" in out and "0–5" in out and "(padding)" in out
    assert out.index("3.0000") < out.index("2.0000")  # the highest first


def test_without_text_there_are_tables_only() -> None:
    assert "ask⏎" not in printed(text=False).split("highest losses")[0]
