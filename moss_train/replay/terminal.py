"""A replayed step on the terminal."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from moss_train.replay.views import MicroBatchView, SampleRows, StepView, TokenRow

STYLES = {
    "ignored": "dim",
    "text": "green",
    "silence": "magenta",
    "first_answer": "bold yellow",
    "after_interruption": "bold red",
}
_WORST = 12
"""Tokens with the highest losses that are listed."""


def show(view: StepView, console: Console, text: bool = True) -> None:
    """Print a step.

    Args:
        text: also the decoded text of every sample.
    """
    console.print(Text(f"step {view.step} of {view.run}", style="bold"), Text(f"({view.source})", style="dim"))
    for sentence in view.equal:
        console.print(Text(f"equal to the run: {sentence}", style="green"))
    for sentence in view.notes:
        console.print(Text(f"note: {sentence}", style="yellow"))
    console.print(_micro_batches(view))
    console.print(_samples(view))
    if view.loss is not None:
        console.print(_losses(view))
    if text:
        console.print(_legend())
        for part in view.micro_batches:
            for sample in part.samples:
                if sample.key:
                    console.print(_panel(part, sample))
    if view.loss is not None:
        console.print(_worst(view))


def _micro_batches(view: StepView) -> Table:
    table = Table(title=f"{len(view.micro_batches)} of {view.size} micro-batches", title_justify="left")
    for name in ("micro-batch", "reader", "samples", "rows", "padding", "frames", "targets"):
        table.add_column(name, justify="right")
    if view.loss is not None:
        table.add_column("loss", justify="right")
    for part in view.micro_batches:
        reader = "–" if part.reader < 0 else str(part.reader)
        count = sum(bool(sample.key) for sample in part.samples)
        cells = [part.number, reader, count, part.rows, f"{part.padding / max(part.rows, 1):.0%}", part.frames, part.targets]
        table.add_row(*map(str, cells), *_loss(part.loss, view))
    return table


def _samples(view: StepView) -> Table:
    table = Table(title="samples", title_justify="left")
    table.add_column("micro-batch", justify="right")
    table.add_column("sample", overflow="fold")
    for name in ("rows", "frames", "targets"):
        table.add_column(name, justify="right")
    if view.loss is not None:
        table.add_column("loss", justify="right")
    for part in view.micro_batches:
        for sample in part.samples:
            name = sample.key or "(padding)"
            frames = _span(sample.frames) if sample.frames[0] < sample.frames[1] else "–"
            table.add_row(str(part.number), name, _span(sample.rows), frames, str(sample.targets), *_loss(sample.loss, view))
    return table


def _losses(view: StepView) -> RenderableType:
    lines = [Text(f"loss {view.loss:.7g} a target, with the weights of {view.checkpoint}")]
    if view.comparable:
        assert view.record is not None and view.loss is not None
        recorded = float(view.record["loss"])
        difference = abs(view.loss - recorded) / max(abs(recorded), 1e-30)
        lines.append(Text(f"the run's metrics say {recorded:.7g}: relative difference {difference:.1e}"))
    lines += [Text(f"  {name}: {value:.5g}", style=STYLES[name]) for name, value in view.class_loss.items()]
    return Group(*lines)


def _legend() -> Text:
    legend = Text("learned", style=STYLES["text"])
    legend.append(" · first word of an answer", style=STYLES["first_answer"])
    legend.append(" · answer behind an interruption", style=STYLES["after_interruption"])
    legend.append(" · silence, learned", style=STYLES["silence"])
    return legend.append(" · read, not learned; ▣ n is the place of frame n, ⟨a–b⟩ the frames seen from there on", style="dim")


def _panel(part: MicroBatchView, sample: SampleRows) -> Panel:
    text, seen = Text(), (0, 0)
    for token in sample.tokens:
        if token.frame is not None:
            text.append(f" ▣ {token.frame} ", style="cyan")
        now = token.visible if token.visible[0] < token.visible[1] else (0, 0)
        if now != seen:
            seen = now
            text.append(f"⟨{_span(seen)}⟩" if seen[0] < seen[1] else "⟨no frame⟩", style="blue")
        if token.frame is None:
            text.append(_printable(token), style=STYLES[token.token_class])
    return Panel(text, title=f"micro-batch {part.number} · {sample.key}", title_align="left")


def _worst(view: StepView) -> Table:
    table = Table(title="highest losses", title_justify="left")
    for name in ("loss", "token", "class", "row", "sample", "before it"):
        table.add_column(name, justify="right" if name in ("loss", "row") else "left", overflow="fold")
    found = [
        (token.loss, index, token, sample)
        for part in view.micro_batches
        for sample in part.samples
        for index, token in enumerate(sample.tokens)
        if token.loss is not None
    ]
    for loss, index, token, sample in sorted(found, key=lambda item: -item[0])[:_WORST]:
        before = "".join(_printable(t) for t in sample.tokens[max(0, index - 6) : index]).replace("\n", "")
        cells = (f"{loss:.4f}", repr(token.text), token.token_class, f"{token.row}", sample.key, before)
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _printable(token: TokenRow) -> str:
    return token.text.replace("\n", "⏎\n") if token.frame is None else f"▣{token.frame}"


def _span(bounds: tuple[int, int]) -> str:
    return f"{bounds[0]}–{bounds[1] - 1}"


def _loss(value: float | None, view: StepView) -> list[str]:
    if view.loss is None:
        return []
    return ["–" if value is None else f"{value:.4f}"]
