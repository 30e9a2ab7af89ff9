"""Builds the run, times its steps, and has it saved and continued."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from model.config import VideoMllamaConfig
from moss_train.bench.full.depth import FullOptions, load_of, plan_of, saved_bytes, whole_model
from moss_train.bench.full.held import held_bytes
from moss_train.bench.full.proof import Proof, check_room
from moss_train.bench.subject import Subject, subject
from moss_train.bench.train import machine
from moss_train.bench.train.cases import Case
from moss_train.bench.train.measure import Say, measure_case
from moss_train.planning.memory import FREE

GIB = 2**30
Keep = Callable[[dict[str, Any]], None]


def measure(
    options: FullOptions, case: Case, device: torch.device, card: int, save: Path | None, resume: Path | None, say: Say, *,
    deadline: float | None = None, keep: Keep = lambda found: None,
) -> dict[str, Any]:  # fmt: skip
    """Everything that is asked for, as far as the time goes.

    Args:
        options: of the command.
        case: chosen by them.
        card: bytes of the device.
        save: folder for a checkpoint; None saves nothing.
        resume: folder of one that another process has saved; the steps are not timed then.
        say: told of the progress.
        deadline: of `time.perf_counter()`, behind which nothing begins but one timed step; None knows no end.
        keep: is given what is known behind each part.

    Raises:
        InputError: a folder that the checkpoint does not fit into or that holds none.
    """
    if save is not None:
        save.mkdir(parents=True, exist_ok=True)
        check_room(save, saved_bytes(case))
    config = VideoMllamaConfig.from_dict(case.config.model)
    found: dict[str, Any] = {"model": _depths(config, options), "card_bytes": card, "plan": _planned(case, options)}
    say(f"{case.name}, {config.text.num_hidden_layers} layers: building the model")
    begin = time.perf_counter()
    with subject(case.config, device, micro_batches=case.micro_batches) as built:
        found["build_seconds"] = time.perf_counter() - begin
        found["build_peak"] = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
        proof = Proof(built, case, options.seed, say)
        if resume is not None:
            return found | {"resumed": proof.resume(resume)}
        timed(found, options, case, built, deadline, say)
        keep(found)
        if save is not None:
            found["proof"] = proof.save_and_continue(save, deadline, lambda part: keep(found | {"proof": part}))
    return found


def timed(
    found: dict[str, Any], options: FullOptions, case: Case, built: Subject, deadline: float | None, say: Say
) -> None:  # fmt: skip
    """Adds what the chip reaches, the steps, and what is held."""
    say("measuring what the chip reaches")
    chip = machine.measure(built.layout.device)
    peaks = {"peak": chip["peak_flops"], "product": chip["product_flops"], "sustained": chip["sustained_flops"]}
    head = {
        "name": case.name, "stage": case.stage, "precision": case.precision, "rows": case.rows, "frame_count": case.frames,
        "optimizer": case.optimizer, "micro_batches": case.micro_batches, "overrides": case.overrides, "data": "synthetic",
        "updates": True,
    }  # fmt: skip
    steps = measure_case(case, built, options.train(), peaks, deadline, say)
    held = held_bytes(built)
    found |= {"chip": chip, "cases": [head | steps], "held": held, "bytes_a_parameter": sum(held.values()) / built.parameters}
    memory = steps["memory"]
    if "beside" in memory:
        found["process_bytes"] = {name: memory[name] + memory["beside"] for name in ("peak", "reserved")}
        found["layers_that_fit"] = _layers_that_fit(found, built)


def _depths(config: VideoMllamaConfig, options: FullOptions) -> dict[str, Any]:
    return {
        "text_layers": config.text.num_hidden_layers,
        "tower_layers": config.vision.num_hidden_layers + config.vision.num_global_layers,
        "whole": config == whole_model(options),
    }


def _planned(case: Case, options: FullOptions) -> dict[str, Any]:
    worst = plan_of(case, options.seed).worst
    return {
        "total": worst.total, "peak": worst.peak, "outside": worst.outside, "phases": worst.phases,
        "targets": load_of(case, options.seed).targets,
    }  # fmt: skip


def _layers_that_fit(found: dict[str, Any], built: Subject) -> int:
    """Decoder layers for which there is room by what was measured: each takes as many bytes as those of the decoder do."""
    text = built.model_config.text
    layers = [p for chunk in built.models.chunks for p in chunk.decoder.parameters()]
    a_layer = sum(p.numel() for p in layers) / text.num_hidden_layers * found["bytes_a_parameter"]
    room = (1 - FREE) * found["card_bytes"] - found["process_bytes"]["reserved"]
    return text.num_hidden_layers + int(room // a_layer)


def summary(found: dict[str, Any]) -> dict[str, float]:
    """What the page says first; of the whole model alone."""
    if not found["model"]["whole"] or "cases" not in found or "process_bytes" not in found:
        return {}
    return {
        "full11b_tflops": found["cases"][0]["tflops"]["model"],
        "full11b_peak_gib": found["process_bytes"]["peak"] / GIB,
    }
