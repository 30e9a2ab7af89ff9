"""Which metrics stand together: the charts of a run's report and of a W&B workspace, by W&B names."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Panel:
    """One chart over steps."""

    title: str
    names: tuple[str, ...]
    """W&B names; `*` stands for any text."""
    unit: str = ""
    stacked: bool = False
    """Values that add up."""
    log: bool = False
    """Logarithmic where values span more than a decade."""
    dots: tuple[str, ...] = ()
    """Of the names, what is measured now and then."""

    def pick(self, recorded: Iterable[str]) -> list[str]:
        """Those of the recorded names that the panel shows, in its order."""
        known = sorted(recorded)
        return list(dict.fromkeys(name for pattern in self.names for name in fnmatch.filter(known, pattern)))


@dataclass(frozen=True)
class Section:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


SECTIONS: tuple[Section, ...] = (
    Section(
        "Loss",
        (
            Panel("Loss", ("train/loss", "eval/loss", "eval/mean_dataset_loss"), "nats a target", log=True, dots=("eval/*",)),
            Panel("Loss by token class", ("loss_by_class/*",), "nats a target", log=True),
            Panel("Loss by dataset", ("loss_by_dataset/*",), "nats a target", log=True),
            Panel("Held-out loss by token class", ("eval/loss_by_class/*",), "nats a target", log=True, dots=("*",)),
            Panel("Held-out loss by dataset", ("eval/loss_by_dataset/*",), "nats a target", log=True, dots=("*",)),
            Panel("Right patches", ("train/accuracy", "eval/accuracy"), "share", dots=("eval/accuracy",)),
        ),
    ),
    Section(
        "Optimization",
        (
            Panel("Gradient norm before clipping", ("train/grad_norm",), log=True),
            Panel("Gradient norm by module", ("grad_norm/*",), log=True),
            Panel("Learning rates", ("learning_rate/*",)),
            Panel("Updates left out", ("train/skipped", "train/rewound_to"), dots=("*",)),
        ),
    ),
    Section(
        "Speed",
        (
            Panel("Tokens a second", ("speed/tokens_per_second",), "1/s"),
            Panel("Frames a second", ("speed/frames_per_second",), "1/s"),
            Panel("Model FLOPs utilisation", ("speed/mfu",), "share of the peak"),
            Panel("Model operations a second", ("speed/tflops_per_second",), "TFLOP/s"),
            Panel("Model operations of a step", ("flops/*",), "TFLOP", stacked=True),
        ),
    ),
    Section(
        "Time",
        (
            Panel("A step, and what lies between steps", ("time/step", "time/between_steps"), "s"),
            Panel("Parts of a step", ("time/phase/*",), "s", stacked=True),
            Panel("Waiting for data", ("data/wait_share",), "share of the step"),
            Panel("Waiting for data and handing it out", ("data/wait", "data/feed"), "s"),
            Panel("Loop blocked by saving", ("time/checkpoint_stall",), "s"),
            Panel("Loop blocked by saving, in all", ("time/checkpoint_stall_total",), "s"),
            Panel("Monitors", ("time/monitors/*",), "s"),
            Panel("Elapsed and left", ("time/elapsed", "time/left"), "s"),
        ),
    ),
    Section(
        "Data",
        (
            Panel("Size of the global batch", ("data/tokens", "data/targets"), "rows"),
            Panel("Frames of the global batch", ("data/frames", "data/frames_encoded_here"), "frames"),
            Panel("Padding", ("data/padding",), "share of the rows"),
            Panel("Samples so far", ("data/samples/*",), "samples"),
            Panel("Passes so far", ("data/epochs/*",), "epochs"),
            Panel("Samples left out", ("data/left_out/*",), "samples"),
        ),
    ),
    Section("Memory", (Panel("The rank that uses most", ("memory/*",), "GiB"),)),
    Section("Evaluations", (Panel("Held-out targets", ("eval/targets", "eval/dataset_targets/*"), "rows", dots=("*",)),)),
)
REST = "Further metrics"


def sections_for(recorded: Iterable[str]) -> list[Section]:
    """The sections with the panels that have data; metrics that no panel names get one each, by the part before the last `/`."""
    names = [name for name in recorded if name != "step" and not name.startswith("_")]
    chosen: list[Section] = []
    shown: set[str] = set()
    for section in SECTIONS:
        panels = [panel for panel in section.panels if panel.pick(names)]
        shown |= {name for panel in panels for name in panel.pick(names)}
        if panels:
            chosen.append(Section(section.title, tuple(panels)))
    rest: dict[str, list[str]] = {}
    for name in sorted(set(names) - shown):
        group = name.rpartition("/")[0]
        rest.setdefault(group if group.count("/") else name, []).append(name)
    if rest:
        chosen.append(Section(REST, tuple(Panel(title, tuple(group), dots=("eval/*",)) for title, group in rest.items())))
    return chosen
