"""What the measurements of training run: a run's modules, optimizer and step, with random weights, on this process alone.

Everything comes from the config of a run, `compose(overrides_of(...))`: nothing is set behind its back, so that a plan for
the same overrides is a plan for what was measured.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

import torch

from data_pipeline.packing.batch import PackedMicroBatch
from model.config import VideoMllamaConfig
from model.errors import InputError
from model.initialise import initialise_weights, set_cross_gates
from moss_train.config.compose import choices, compose
from moss_train.config.schema import RunConfig
from moss_train.engines.adapters import adapt
from moss_train.engines.from_config import encode_settings_of, models_of
from moss_train.engines.models import Models, freeze
from moss_train.engines.optimization import Optimization
from moss_train.parallel.layout import ParallelLayout, start_layout, stop_layout
from moss_train.parallel.world import start_world
from moss_train.platform.deterministic import set_deterministic
from moss_train.signals import Signals
from moss_train.statistics import StepStatistics
from moss_train.step import DecoupledStep, StepSettings

GATE, DEVIATION = 0.5, 0.02
"""Of gates and matrices: a GPU takes less power, and is faster, where it computes with zeros."""
OPTIMIZERS = {
    "none": (),
    "adamw": ("optimizer=adamw",),
    "compact": ("optimizer=adamw_lean", "precision.grad_reduce_fp32=false"),
}
"""none: forward and backward alone, without the states of an optimizer; compact: 10 bytes a parameter in all."""
PRECISIONS = {
    "bf16": ("precision=bf16",),
    "fp8": ("precision=fp8", "precision.fp8_cross_layers=true", "precision.fp8_vision=true"),
    "fp32": ("precision=fp32",),
}
"""fp8: of the decoder's layers, cross layers among them, and of the tower."""


@dataclass(frozen=True)
class Cut:
    """Depths to which a model is cut; None leaves them. Widths, heads and vocabulary stay."""

    text_layers: int | None = None
    """Decoder layers; cross layers keep their places, those beyond are left out."""
    tower_layers: int | None = None
    """Local and global layers of the tower together, in the model's own proportion."""
    text_option: str = "--text-layers"
    """What a command calls `text_layers`, for what it says of a depth that there is not."""

    def overrides(self, model: VideoMllamaConfig) -> list[str]:
        """Of a run's config.

        Raises:
            InputError: a depth that the model does not have, or at which nothing of a kind is left.
        """
        return [*self._text(model), *self._tower(model)]

    def _text(self, model: VideoMllamaConfig) -> list[str]:
        layers, places = self.text_layers, model.text.cross_attention_layers
        if layers is None or layers == model.text.num_hidden_layers:
            return []
        least = min(places) + 1
        if not least <= layers <= model.text.num_hidden_layers:
            raise InputError(
                f"{self.text_option} is {layers}; this model takes {least}, its first cross layer's, "
                f"to {model.text.num_hidden_layers}"
            )
        kept = [place for place in places if place < layers]
        return [f"model.text.num_hidden_layers={layers}", f"model.text.cross_attention_layers={_list(kept)}"]

    def _tower(self, model: VideoMllamaConfig) -> list[str]:
        layers, vision = self.tower_layers, model.vision
        whole = vision.num_hidden_layers + vision.num_global_layers
        if layers is None or layers == whole:
            return []
        indices = vision.intermediate_layers_indices
        most_global = max(1, round((layers or 0) * vision.num_global_layers / whole))
        local = layers - most_global
        if layers > whole or local < max(1, len(indices)):
            raise InputError(
                f"--tower-layers is {layers}; this model takes at most {whole}, and so many that {max(1, len(indices))} are local"
            )
        scaled = [index * local // vision.num_hidden_layers for index in indices]
        for place in range(len(scaled)):  # apart from each other, and not beyond the last layer
            lowest = scaled[place - 1] + 1 if place else 0
            scaled[place] = min(max(scaled[place], lowest), local - len(scaled) + place)
        return [
            f"model.vision.num_hidden_layers={local}", f"model.vision.num_global_layers={most_global}",
            f"model.vision.intermediate_layers_indices={_list(scaled)}",
        ]  # fmt: skip


def _list(values: Sequence[int]) -> str:
    return f"[{','.join(map(str, values))}]"


def overrides_of(
    stage: str, *, model: str = "11b", cut: Cut | None = None, precision: str = "bf16", optimizer: str = "none",
    recompute: str = "none", keep_mode: str | None = None, keep_gib: float | None = None, more: Sequence[str] = (),
) -> list[str]:  # fmt: skip
    """Overrides that make a run's config: `compose(overrides_of("pt2"))`.

    Args:
        stage: of conf/stage.
        model: of conf/model.
        cut: depths; None takes the whole model.
        precision: of `PRECISIONS`.
        optimizer: of `OPTIMIZERS`; whether there is one at all is `Subject`'s.
        recompute: none | full, of the decoder.
        keep_mode: `vision.keep_mode`; None leaves the config's.
        keep_gib: `vision.keep_activations_gib`; None leaves the config's.
        more: further overrides, which win.

    Raises:
        InputError: an unknown name, or a depth that the model does not have.
    """
    for option, value, known in (
        ("--stages", stage, choices("stage")), ("--model", model, choices("model")),
        ("--precision", precision, list(PRECISIONS)), ("--optimizer", optimizer, list(OPTIMIZERS)),
    ):  # fmt: skip
        if value not in known:
            raise InputError(f"{option} has {value!r}; use {', '.join(known)}")
    base = [f"stage={stage}", f"model={model}", "run_dir=unused"]
    whole = VideoMllamaConfig.from_dict(compose(base).model)
    chosen = [*base, *(cut or Cut()).overrides(whole), *PRECISIONS[precision], *OPTIMIZERS[optimizer]]
    if recompute != "none":
        chosen.append(f"parallel.recompute={recompute}")
    if keep_mode is not None:
        chosen.append(f"vision.keep_mode={keep_mode}")
    if keep_gib is not None:
        chosen.append(f"vision.keep_activations_gib={keep_gib:g}")
    return [*chosen, *more]


class Subject:
    """A run's modules, optimizer and step on one rank. Ends with `close`, or as `with subject(...)`.

    Args:
        config: model, stage, precision, recompute, vision, attention, optimizer, engine; data and run folder play no part.
        device: where it runs.
        updates: with an optimizer; False keeps gradients alone.
        weights: random | seeded: drawn on the device, or those that a run of this seed begins with (slow at 11B).
        micro_batches: of a step; DeepSpeed wants to know.
        dataset_names: of the data that it trains on.
    """

    def __init__(
        self, config: RunConfig, device: torch.device, *, updates: bool = True, weights: str = "random", micro_batches: int = 1,
        dataset_names: Sequence[str] = ("synthetic",),
    ) -> None:  # fmt: skip
        set_deterministic(config.train.deterministic)
        start_world(device)
        self.config, self.updates = config, updates
        self.model_config = VideoMllamaConfig.from_dict(config.model)
        self.layout: ParallelLayout = start_layout(config.parallel, device, config.train.seed)
        self.models: Models = self._build(device, weights)
        self.weight_bytes = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
        """Allocated once the modules are built; 0 on a CPU."""
        self.optimization = self._optimization(micro_batches)
        self._dataset_names = tuple(dataset_names)
        self.step: DecoupledStep = self._step(self._settings())
        self.done = 0
        """Steps so far."""

    def use(self, config: RunConfig) -> None:
        """Goes on with another config, which asks for the same modules and optimizer: what differs is what the step keeps."""
        self.config = config
        self.step = self._step(self._settings())

    def _settings(self) -> StepSettings:
        return StepSettings(
            silence_token_weight=self.config.stage.silence_token_weight, silence_id=None,
            encode=encode_settings_of(self.config, self.models),
            dataset_names=self._dataset_names, overlap_grad_reduce=self.config.train.overlap_grad_reduce,
        )  # fmt: skip

    @property
    def parameters(self) -> int:
        """Of all modules, trained or not."""
        modules: list[torch.nn.Module] = [*self.models.chunks, self.models.unit]
        return sum(p.numel() for module in modules for p in module.parameters())

    def train(self, batches: Sequence[PackedMicroBatch], *, rate: float = 1e-5, signals: Signals | None = None) -> StepStatistics:
        """One step: gradients, and the update where there is an optimizer. The device may still be at work when it returns.

        Args:
            batches: micro-batches.
            rate: learning rate of decoder and vision.
        """
        statistics = self.step.accumulate(batches, signals)
        if self.updates:
            self.optimization.set_learning_rates(rate, rate)
            with self.step.phases("optimizer"):
                self.optimization.update()
        self.done += 1
        return statistics

    def close(self) -> None:
        """Free everything, so that another subject can be made in this process."""
        on_gpu = self.layout.device.type == "cuda"
        close = getattr(self.optimization, "close", None)
        if close is not None:
            close()
        stop_layout()
        self.__dict__.clear()
        if on_gpu:
            _forget_engine()
        gc.collect()
        if on_gpu:
            torch.cuda.empty_cache()

    def _build(self, device: torch.device, weights: str) -> Models:
        config = self.config
        with torch.device(device):
            models = models_of(config, self.layout, self.model_config)
        if weights == "seeded":
            initialise_weights(models.chunks, models.vision, self.model_config, config.train.seed)
        else:
            draw_weights(models, config.train.seed)
        if config.stage.gate_init is not None:
            set_cross_gates(models.chunks, config.stage.gate_init)
        adapt(models, config.lora, config.stage, config.train.seed)
        freeze(models, config.stage, config.lora)
        return models

    def _optimization(self, micro_batches: int) -> Optimization:
        config, models = self.config, self.models
        if config.engine == "deepspeed":
            from moss_train.engines.deepspeed.optimization import DeepSpeedOptimization

            if not self.updates:
                raise InputError("engine is deepspeed, which keeps no gradients without its optimizer; use --optimizer adamw")
            return DeepSpeedOptimization(models, config, micro_batches, self.layout.device)  # type: ignore[return-value]
        if not self.updates:
            from moss_train.bench.gradients import GradientsOnly

            return GradientsOnly(models.chunks, models.unit, models.transformer_config, self.layout, config.precision)
        return Optimization(
            models.chunks, models.unit, models.transformer_config, self.layout, config.optimizer, config.precision
        )

    def _step(self, settings: StepSettings) -> DecoupledStep:
        if self.config.engine == "deepspeed":
            from moss_train.engines.deepspeed.step import DeepSpeedStep

            return DeepSpeedStep(self.models, self.optimization, self.layout, settings)  # type: ignore[return-value,arg-type]
        return DecoupledStep(self.models, self.optimization, self.layout, settings)


@contextmanager
def subject(config: RunConfig, device: torch.device, **options: object) -> Iterator[Subject]:
    """A `Subject` that is closed in the end, whatever happens; options are those of the class."""
    make: Callable[..., Subject] = Subject
    made: Subject | None = None
    try:
        made = make(config, device, **options)
        yield made
    finally:
        if made is not None:
            made.close()
        else:
            stop_layout()  # what was begun when building failed


@torch.no_grad()
def draw_weights(models: Models, seed: int) -> None:
    """Random matrices and open gates, drawn where the parameters are; norms and biases stay as they were made."""
    torch.manual_seed(seed)
    modules: list[torch.nn.Module] = [*models.chunks, models.unit]
    for module in modules:
        if module is models.unit:
            torch.manual_seed(seed + 1)  # a replica on every rank: the same, whichever chunks a rank has drawn before
        for name, parameter in module.named_parameters():
            if parameter.dim() >= 2:
                parameter.normal_(0.0, DEVIATION)
            elif "gate" in name.rsplit(".", 1)[-1]:
                parameter.fill_(GATE)


def model_values(config: VideoMllamaConfig) -> dict[str, object]:
    """What `RunConfig.model` holds for a model."""
    return asdict(config)


def with_model(config: RunConfig, model: VideoMllamaConfig) -> RunConfig:
    """The same run with another model."""
    return replace(config, model=model_values(model))


def _forget_engine() -> None:
    """Frees what Transformer Engine keeps of models by itself: the histories of delayed scaling."""
    try:
        from transformer_engine.pytorch.quantization import FP8GlobalStateManager
    except ImportError:
        return
    FP8GlobalStateManager.reset()
