"""Gradient buffers and optimizers: the decoder in megatron-core's groups, the vision unit data parallel over the world."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig
from megatron.core.optimizer import ChainedOptimizer, ParamKey, get_megatron_optimizer
from megatron.core.optimizer.optimizer_config import ParamPredicate
from megatron.core.transformer.transformer_config import TransformerConfig

from model.config import VideoMllamaConfig
from model.conversion.table import VISION_KEY, all_rules
from model.errors import InputError
from model.kernels.select import Form
from moss_train.config.optimizer import OptimizerConfig as OptimizerSettings
from moss_train.config.schema import PrecisionConfig
from moss_train.engines.buffers import lighten
from moss_train.engines.optimizer.average import WeightAverage
from moss_train.engines.optimizer.modules import ModuleRates, Rate, named
from moss_train.engines.optimizer.muon import MUON, Matrix, muon_matrix, use_muon
from moss_train.engines.optimizer.one_pass import OnePass
from moss_train.engines.optimizer.settings import megatron_config
from moss_train.engines.optimizer.states import prepare_states, set_steps
from moss_train.parallel.layout import ParallelLayout, at_end_of_layout


def trains_anywhere(modules: Sequence[torch.nn.Module], device: torch.device) -> bool:
    """Whether any rank has a trainable parameter among its modules: construction is collective, so all must agree."""
    flag = torch.tensor([any(p.requires_grad for m in modules for p in m.parameters())], dtype=torch.int32, device=device)
    dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return bool(flag.item())


def rate_overrides(parameters: Iterable[tuple[str, torch.nn.Parameter]], rates: ModuleRates, muon: bool) -> dict[Any, Any]:
    """What puts megatron-core's parameters into groups: one for every pair of learning-rate multiplier and weight decay, and
    with Muon for each of its two methods.

    `wd_mult` carries the decay itself: megatron-core tells groups apart by these two and multiplies nothing by them. Groups of
    all ranks are gathered and sorted by them, so that they are the same in every layout.
    """
    members: dict[tuple[Rate, bool], set[int]] = {}
    for name, parameter in parameters:
        is_matrix = muon and muon_matrix(name, parameter.dim())
        members.setdefault((rates.of(name, parameter), is_matrix), set()).add(id(parameter))
    overrides = {}
    for (rate, is_matrix), ids in members.items():
        key = ParamKey(predicate=ParamPredicate(f"{rate} {is_matrix}", lambda parameter, ids=ids: id(parameter) in ids))
        overrides[key] = {"lr_mult": rate.multiplier, "wd_mult": rate.decay} | ({MUON: is_matrix} if muon else {})
    return overrides


def matrices_of(chunks: Sequence[torch.nn.Module], vision: torch.nn.Module, config: VideoMllamaConfig) -> dict[int, Matrix]:
    """How Muon's parameters are put together of shares and parts, by their id."""
    rules = {rule.megatron.removeprefix(VISION_KEY): rule for rule in all_rules(config)}
    group = parallel_state.get_tensor_model_parallel_group()
    return {
        id(parameter): Matrix(rules[name], config.text, None if rules[name].megatron.startswith(VISION_KEY) else group)
        for name, parameter in named(chunks, vision)
        if muon_matrix(name, parameter.dim())
    }


def _forget_hooks(wrapped: Iterable[DistributedDataParallel]) -> None:
    """Take megatron-core's hooks off the gradients: nothing else ends the cycle that keeps modules and their groups for ever."""
    for module in wrapped:
        for node in module.grad_accs:
            handle = node.register_hook(lambda *_: None)
            handle.hooks_dict_ref().clear()  # all of the node, this one among them
        module.grad_accs.clear()


class Optimization:
    """Everything that holds a gradient or an optimizer state.

    Args:
        chunks: the decoder's virtual stages on this rank, frozen as the stage wants.
        vision: vision encoder (and dense head), replicated on every rank.
        transformer_config: config shared by the decoder's modules.
        layout: this rank's place.
        settings: optimizer values; learning rates are set before every update.
        precision: parameter dtype and the dtype of reduced gradients.
        form: of the update, for comparisons: see `OnePass`.
    """

    def __init__(
        self,
        chunks: Sequence[torch.nn.Module],
        vision: torch.nn.Module,
        transformer_config: TransformerConfig,
        layout: ParallelLayout,
        settings: OptimizerSettings,
        precision: PrecisionConfig,
        form: Form | None = None,
    ) -> None:
        config = megatron_config(settings, precision, layout.device)
        self._norm = float("nan")
        self.updates = 0
        """Updates applied in the whole run: skipped ones do not count."""
        self._counts_steps = settings.name != "sgd"
        reduce_fp32 = precision.grad_reduce_fp32

        def buffers(fp32: bool) -> DistributedDataParallelConfig:
            # No overlap: a rank that encodes no frame in one step must still take part in the same reductions.
            return DistributedDataParallelConfig(
                use_distributed_optimizer=settings.distributed, grad_reduce_in_fp32=fp32, overlap_grad_reduce=False
            )

        model_config: VideoMllamaConfig = chunks[0].model_config  # type: ignore[assignment]
        muon = settings.name == "muon"
        overrides = rate_overrides(named(chunks, vision), ModuleRates(settings, model_config), muon)
        matrices = matrices_of(chunks, vision, model_config) if muon else {}
        decoder_trains = trains_anywhere(chunks, layout.device)
        vision_trains = trains_anywhere([vision], layout.device)
        if not decoder_trains and not vision_trains:
            raise InputError("stage.trainable leaves no parameter to train; choose another preset")
        # The schedule needs wrapped chunks even when nothing in them trains.
        self.decoder = [
            DistributedDataParallel(transformer_config, buffers(reduce_fp32), chunk, disable_bucketing=i > 0)
            for i, chunk in enumerate(chunks)
        ]
        self.vision: Any = None
        self.decoder_optimizers: list[Any] = []
        self.vision_optimizers: list[Any] = []
        if decoder_trains:
            self.decoder_optimizers = get_megatron_optimizer(config, self.decoder, overrides).chained_optimizers
        if vision_trains:
            groups = layout.vision_groups
            # Several encoder chunks add into one buffer: fp32 main gradients always.
            self.vision = DistributedDataParallel(transformer_config, buffers(True), vision, pg_collection=groups)
            self.vision_optimizers = get_megatron_optimizer(
                config, [self.vision], overrides, use_gloo_process_groups=False, pg_collection=groups
            ).chained_optimizers
        self.optimizer = ChainedOptimizer(self.decoder_optimizers + self.vision_optimizers)
        members = self.optimizer.chained_optimizers
        prepare_states(members, settings.momentum)
        if muon:
            use_muon(members, matrices, settings.momentum, (settings.beta1, settings.beta2), settings.eps)
        self._one_pass = OnePass(members, layout.device, form)
        self._average = WeightAverage(members, settings.ema_decay) if settings.ema_decay else None
        wrapped = [*self.decoder, *([self.vision] if self.vision is not None else [])]
        lighten(wrapped)
        at_end_of_layout(lambda: _forget_hooks(wrapped))

    def zero(self) -> None:
        """Clear all gradients."""
        for chunk in self.decoder:
            chunk.zero_grad_buffer()
        if self.vision is not None:
            self.vision.zero_grad_buffer()
        self.optimizer.zero_grad()

    def finish_vision(self, targets: torch.Tensor | None = None) -> None:
        """Sum the vision gradients over the world; every rank calls it.

        Args:
            targets: scalar, the global number of targets, by which they are divided; None where the loss was.
        """
        if self.vision is None:
            return
        self.vision.finish_grad_sync()
        if targets is not None and targets > 0:
            self.vision.scale_gradients(1.0 / targets)

    def set_learning_rates(self, decoder: float, vision: float) -> None:
        """Learning rates of the next update, before the multipliers of `optimizer.modules`."""
        for optimizers, rate in ((self.decoder_optimizers, decoder), (self.vision_optimizers, vision)):
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = rate * group["lr_mult"]
                    group["weight_decay"] = group["wd_mult"]

    def set_updates(self, updates: int) -> None:
        """Tell the optimizers the number of updates applied; Adam's bias correction follows it."""
        self.updates = updates
        if self._counts_steps:
            set_steps(self.optimizer.chained_optimizers, updates)

    def prepare(self) -> float:
        """Make the gradients ready; their global norm before clipping. The weights are not touched."""
        self.optimizer.prepare_grads()
        norm = self.optimizer.get_grad_norm()
        self._norm = float(norm) if norm is not None else float("nan")
        return self._norm

    def apply(self) -> None:
        """Update the weights by the prepared gradients, clipped, and what averages them. Whether the gradients in memory are
        clipped then depends on the machine: read them before."""
        self.set_updates(self.updates)
        for optimizer in self.optimizer.chained_optimizers:
            self._one_pass.clip(optimizer, self._norm)
        self.optimizer.step_with_ready_grads()
        self.updates += 1
        if self._average is not None:
            self._average.update(self.updates)

    def update(self) -> float:
        """Prepare and apply; returns the global gradient norm before clipping."""
        norm = self.prepare()
        self.apply()
        return norm
