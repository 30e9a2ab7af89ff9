"""What the seconds of a step mean: operations a second by part and by phase, shares of what the chip can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from model.config import VideoMllamaConfig
from moss_train.config.schema import RunConfig
from moss_train.frames.cost import frame_flops, layer_flops
from moss_train.planning.flops import AGAIN, Flops, Work, hardware_flops, model_flops
from moss_train.planning.parameters import layers_again

TERA = 1e12
PHASES = ("encode", "decode", "return", "statistics", "optimizer", "data_wait", "other")
"""Parts of a step; they add up to it."""


@dataclass
class StepRecord:
    """One measured step."""

    seconds: dict[str, float]
    """By phase, and the whole `step`."""
    host: dict[str, float]
    """Until the host was through, by phase."""
    work: Work
    tokens: int
    """Rows of samples, padding left out."""
    samples: int
    again: int = 0
    """Frames encoded a second time."""
    kept: int = 0
    """Frames whose state was kept on the device."""
    keep_mode: str = "all"
    on_host: int = 0
    """Frames whose state was kept in host memory."""
    host_mode: str = "all"
    loss: float = 0.0
    peaks: dict[str, int] = field(default_factory=dict)


def parts_of(phases: dict[str, float], wait: float, step: float) -> dict[str, float]:
    """Seconds by `PHASES`, and of the step; what no phase took is `other`."""
    known = {name: phases.get(name, 0.0) for name in PHASES if name not in ("data_wait", "other")}
    known["data_wait"] = wait
    return {**known, "other": step - sum(known.values()), "step": step}


@dataclass(frozen=True)
class StepFlops:
    """Operations of one step."""

    model: Flops
    hardware: Flops
    vision_forward: float
    """The tower's and projector's first pass."""

    @classmethod
    def of(cls, config: VideoMllamaConfig, run: RunConfig, record: StepRecord) -> StepFlops:
        """By the formulas of `moss_train.planning.flops`."""
        return cls(
            model=model_flops(config, record.work, run.stage, run.lora),
            hardware=hardware_flops(
                config, record.work, run.stage, run.lora, recompute=run.parallel.recompute,
                layers_again=layers_again(config, run.parallel), frames_again=record.again, frames_kept=record.kept,
                keep_mode=record.keep_mode, frames_on_host=record.on_host, host_mode=record.host_mode,
            ),
            vision_forward=record.work.frames * frame_flops(config),
        )  # fmt: skip

    def scaled(self, share: float) -> StepFlops:
        """A share of them."""
        parts = [Flops(**{name: share * value for name, value in asdict(f).items()}) for f in (self.model, self.hardware)]
        return StepFlops(parts[0], parts[1], share * self.vision_forward)

    def __add__(self, other: StepFlops) -> StepFlops:
        return StepFlops(self.model + other.model, self.hardware + other.hardware, self.vision_forward + other.vision_forward)


def attention_flops(config: VideoMllamaConfig, run: RunConfig, record: StepRecord) -> float:
    """Operations of scores and weighted values alone, as the formulas count them: what fused kernels run again is left out."""
    without = replace(record, work=replace(record.work, self_pairs=0, cross_pairs=0))
    decoder = StepFlops.of(config, run, record).hardware.decoder - StepFlops.of(config, run, without).hardware.decoder
    vision = config.vision
    layers = vision.num_hidden_layers + vision.num_global_layers
    kept_again = record.kept if "attention" in AGAIN[record.keep_mode] else 0
    kept_again += record.on_host if "attention" in AGAIN[record.host_mode] else 0
    passes = record.work.frames * (3 if record.kept + record.on_host + record.again else 1) + record.again + kept_again
    return decoder + passes * layers * layer_flops(vision, config.switches.vit_keep_pad_tokens)["attention"]


def middle(records: Sequence[StepRecord]) -> StepRecord:
    """The step whose time is the median (of two the quicker): its parts add up."""
    return sorted(records, key=lambda record: record.seconds["step"])[(len(records) - 1) // 2]


def spread(records: Sequence[StepRecord]) -> dict[str, float]:
    """Least, median, most and mean of the steps' seconds."""
    times = sorted(record.seconds["step"] for record in records)
    return {
        "least": times[0],
        "median": times[(len(times) - 1) // 2],
        "most": times[-1],
        "mean": sum(times) / len(times),
    }


def mean_seconds(records: Sequence[StepRecord]) -> dict[str, float]:
    """Of every phase, over steps that differ in their work."""
    return {name: sum(record.seconds[name] for record in records) / len(records) for name in records[0].seconds}


def rates(seconds: dict[str, float], flops: StepFlops, peaks: dict[str, float | None]) -> dict[str, Any]:
    """Operations, operations a second in 1e12, and model operations' shares of peaks.

    Args:
        seconds: of a step, by phase.
        flops: of that step.
        peaks: operations a second by name, None where not known.

    Returns:
        `flops`, `tflops` (`model` and `hardware` of the whole step; `by_part` adds up to `model`; `decoder` and
        `decoder_hardware` in the decode phase; `vision_forward` in the encode phase; `vision_backward` in the return phase, what
        is encoded again included; None for a phase without work), `mfu`.
    """
    model, hardware, step = flops.model, flops.hardware, seconds["step"]
    behind = hardware.vision + hardware.projector - flops.vision_forward
    return {
        "flops": {"model": {**asdict(model), "total": model.total}, "hardware": {**asdict(hardware), "total": hardware.total}},
        "tflops": {
            "model": model.total / step / TERA,
            "hardware": hardware.total / step / TERA,
            "by_part": {part: value / step / TERA for part, value in asdict(model).items()},
            "decoder": _rate(model.decoder, seconds["decode"]),
            "decoder_hardware": _rate(hardware.decoder, seconds["decode"]),
            "vision_forward": _rate(flops.vision_forward, seconds["encode"]),
            "vision_backward": _rate(behind, seconds["return"]),
        },
        "mfu": {name: None if peak is None else model.total / step / peak for name, peak in peaks.items()},
    }


def _rate(flops: float, seconds: float) -> float | None:
    return flops / seconds / TERA if flops > 0 and seconds > 0 else None
