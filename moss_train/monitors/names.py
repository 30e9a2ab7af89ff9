"""Every value of a record: key in metrics.jsonl, name in W&B, unit and meaning. docs/metrics.md has this table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Metric(NamedTuple):
    """One value, or a group of values by name where the W&B name ends in `/*`."""

    key: str
    """In metrics.jsonl. A `*` stands for a token class."""
    name: str
    """In W&B."""
    unit: str
    meaning: str


METRICS: tuple[Metric, ...] = (
    Metric("loss", "train/loss", "nats", "Weighted loss of a target token"),
    Metric("accuracy", "train/accuracy", "share", "Right patches; only of the dense warm start"),
    Metric("grad_norm", "train/grad_norm", "", "Global norm of the gradients before clipping"),
    Metric("skipped", "train/skipped", "0 or 1", "Whether the update was left out; absent where it was applied"),
    Metric("skip_reason", "train/skip_reason", "", "Why the update was left out"),
    Metric("rewound_to", "train/rewound_to", "step", "The checkpoint whose weights were taken back instead of the update"),
    Metric("loss_*", "loss_by_class/*", "nats", "Unweighted loss of the targets of one token class"),
    Metric("dataset_loss", "loss_by_dataset/*", "nats", "Unweighted loss of the targets of one dataset"),
    Metric("grad_norms", "grad_norm/*", "", "Norm by module; the squares sum to that of the global norm"),
    Metric("learning_rate", "learning_rate/decoder", "", "Of the decoder"),
    Metric("vision_learning_rate", "learning_rate/vision", "", "Of tower and projector"),
    Metric("learning_rates", "learning_rate/*", "", "Of each entry of optimizer.modules that has a rate of its own"),
    Metric("tokens_per_second", "speed/tokens_per_second", "1/s", "Rows of samples, frames included, over all ranks"),
    Metric("frames_per_second", "speed/frames_per_second", "1/s", "Frames over all ranks"),
    Metric("tflops_per_second", "speed/tflops_per_second", "T/s", "Model operations a second over all ranks, vision included"),
    Metric("mfu", "speed/mfu", "share", "Time that the operations need at the GPUs' peak, of the step's time; on known GPUs"),
    Metric("tflops", "flops/*", "T", "Model operations of the step by part: vision, projector, text, cross, head"),
    Metric("seconds", "time/step", "s", "From the read to the update, on the first rank"),
    Metric("between_seconds", "time/between_steps", "s", "Evaluations, checkpoints, monitors since the step before"),
    Metric("phase_seconds", "time/phase/*", "s", "Parts of the step on the first rank; on a GPU by its own events"),
    Metric("monitor_seconds", "time/monitors/*", "s", "What each monitor took since the step before, on the first rank"),
    Metric("elapsed_seconds", "time/elapsed", "s", "In the run, over restarts, without the time between them"),
    Metric("eta_seconds", "time/left", "s", "Until the last step; from the third step of a process on"),
    Metric("checkpoint_stall_seconds", "time/checkpoint_stall", "s", "How long saving blocked the loop since the record before"),
    Metric("checkpoint_stall_total", "time/checkpoint_stall_total", "s", "The same over the whole run"),
    Metric("data_seconds", "data/wait", "s", "How long the slowest replica waited for its loader"),
    Metric("data_share", "data/wait_share", "share", "Of the step's time"),
    Metric("feed_seconds", "data/feed", "s", "Handing rows out to the ranks of a replica"),
    Metric("padding", "data/padding", "share", "Rows that belong to no sample"),
    Metric("tokens", "data/tokens", "", "Rows of samples, frames included"),
    Metric("targets", "data/targets", "", "Rows that count in the loss"),
    Metric("frames", "data/frames", "", "Frames of the global batch"),
    Metric("frames_encoded_here", "data/frames_encoded_here", "", "Frames that the first rank encoded"),
    Metric("dataset_samples", "data/samples/*", "", "Samples of each dataset so far, over restarts"),
    Metric("dataset_epochs", "data/epochs/*", "", "The same in passes over the dataset"),
    Metric("left_out", "data/left_out/*", "", "Samples of each dataset in the quarantine ledger"),
    Metric("memory", "memory/*", "GiB", "The largest of all ranks: allocated and reserved (peaks of the GPU), host, loaders"),
    Metric("eval_loss", "eval/loss", "nats", "Held-out loss"),
    Metric("eval_loss_*", "eval/loss_by_class/*", "nats", "Held-out loss by token class"),
    Metric("eval_dataset_loss", "eval/loss_by_dataset/*", "nats", "Held-out loss by dataset"),
    Metric("eval_mean_dataset_loss", "eval/mean_dataset_loss", "nats", "Mean of the datasets' held-out losses"),
    Metric("eval_targets", "eval/targets", "", "Rows that count in it"),
    Metric("eval_dataset_targets", "eval/dataset_targets/*", "", "The same by dataset"),
    Metric("eval_accuracy", "eval/accuracy", "share", "Right patches; only of the dense warm start"),
)
_PLAIN = {metric.key: metric.name for metric in METRICS if "*" not in metric.key}
_BY_CLASS = (("eval_loss_", "eval/loss_by_class/"), ("loss_", "loss_by_class/"))


def name_of(key: str) -> str:
    """The W&B name of a key, with `/*` behind it for groups; keys that the table lacks go under `eval` or `other`."""
    if key in _PLAIN:
        return _PLAIN[key]
    for prefix, name in _BY_CLASS:
        if key.startswith(prefix):
            return name + key.removeprefix(prefix)
    return f"eval/{key.removeprefix('eval_')}" if key.startswith("eval_") else f"other/{key}"


def flatten(record: Mapping[str, Any]) -> dict[str, float]:
    """A record as W&B gets it: numbers by name; texts and lists are left out, `step` keeps its name."""
    row: dict[str, float] = {}
    for key, value in record.items():
        if key == "step":
            row["step"] = value
        else:
            _put(row, name_of(key), value)
    return row


def _put(row: dict[str, float], name: str, value: Any) -> None:
    if isinstance(value, Mapping):
        for part, item in value.items():
            _put(row, f"{name.removesuffix('/*')}/{part}", item)
    elif isinstance(value, bool):
        row[name] = int(value)
    elif isinstance(value, (int, float)):
        row[name] = value


def documented(name: str) -> bool:
    """Whether the table has a W&B name."""
    return any(name == m.name or (m.name.endswith("/*") and name.startswith(m.name[:-1])) for m in METRICS)
