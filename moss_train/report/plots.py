"""Loss curves as inline SVG."""

from __future__ import annotations

import io

from moss_train.report.collect import StageCurve


def loss_svg(curve: StageCurve) -> str:
    """One panel: training loss as a line, held-out loss as dots, logarithmic where it spans a decade."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(3.4, 2.3), constrained_layout=True)
    axes.plot(curve.steps, curve.losses, color="#3465a4", linewidth=0.9, label="training")
    if curve.eval_losses:
        axes.plot(curve.eval_steps, curve.eval_losses, "o--", color="#cc5500", markersize=4, linewidth=0.8, label="held out")
    if min(curve.losses) > 0 and max(curve.losses) / min(curve.losses) > 10:
        axes.set_yscale("log")
    axes.set_title(curve.name, fontsize=9)
    axes.set_xlabel("step", fontsize=8)
    axes.set_ylabel("loss per target token", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=7, frameon=False)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    pyplot.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]
