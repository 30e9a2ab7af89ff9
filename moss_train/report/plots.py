"""The chart of a stage's loss."""

from __future__ import annotations

from moss_train.report.chart import Series, line_chart
from moss_train.report.collect import StageCurve


def loss_svg(curve: StageCurve) -> str:
    """Training loss as a line, held-out loss as dots, logarithmic where they span a decade."""
    series = [Series("training", curve.steps, curve.losses)]
    if curve.eval_losses:
        series.append(Series("held out", curve.eval_steps, curve.eval_losses, dots=True))
    return line_chart(curve.name, series, unit="nats a target", log=True)
