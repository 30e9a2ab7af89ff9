"""All models and cases behind each other; what fails is told and left."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import torch

from model.config import VideoMllamaConfig
from model.errors import InputError
from model.vision.fused.levels import all_fused
from moss_train.bench.packs import PackSample
from moss_train.bench.reference.budget import SMALLER, again_frames, keep_gib, limit_gib
from moss_train.bench.reference.cases import Case, Model, Options
from moss_train.bench.reference.measure import measure, sample_flops, work_flops
from moss_train.bench.reference.samples import mixture_samples
from moss_train.bench.reference.way import ReferenceWay
from moss_train.bench.subject import Subject
from moss_train.bench.train.run import TIME_UP, out_of_memory
from moss_train.config.compose import compose
from moss_train.frames.settings import GIB
from moss_train.parallel.layout import stop_layout
from moss_train.planning.workload import STAGES

Say = Callable[[str], None]
NO_MEMORY = "out of memory"
STATE_BYTES = {"none": 0, "zero2": 12, "adamw": 12, "compact": 6}
"""Of an optimizer, by parameter, made in its first update at the latest."""


class Comparison:
    """Runs cases on models.

    Args:
        options: what is asked for.
        device: where.
        keep: is given the results so far behind every case.
        say: told of the progress.
    """

    def __init__(self, options: Options, device: torch.device, keep: Callable[[dict[str, Any]], None], say: Say) -> None:
        self._options, self._device, self._keep, self._say = options, device, keep, say
        self._begin = time.perf_counter()
        self._subject: Subject | None = None
        self._static = 0
        """Bytes allocated once the model was built."""
        self._rate: float | None = None
        """Operations a second of the newest case."""
        self._waiting: list[tuple[Model, Case]] = []
        """What has not been measured yet, the present case first."""
        self.results: dict[str, Any] = {"cases": [], "left_out": []}

    def run(self, models: Sequence[tuple[Model, list[Case]]]) -> dict[str, Any]:
        """Measure.

        Returns:
            `cases` and `left_out`; a case that failed has `failed`, a sentence, in place of numbers.
        """
        self._waiting = [(model, case) for model, cases in models for case in cases]
        for model, cases in models:
            try:
                for case in cases:
                    self._case(model, case)
                    self._waiting.pop(0)
            finally:
                self._close()
            self._rate = None
        self._keep(self.results)
        return self.results

    def _case(self, model: Model, case: Case) -> None:
        name = f"{model.name}, {case.name}"
        if self._left <= 0:
            self.results["left_out"].append({"name": name, "reason": TIME_UP})
            return
        begin = time.perf_counter()
        found: dict[str, Any] = {
            "name": name, "side": model.side, "precision": model.precision, "optimizer": model.optimizer, "kind": case.kind,
            "stage": case.stage, "frame_count": case.frames, "rows": case.rows, "overrides": list(model.overrides),
        }  # fmt: skip
        sentence = self._try(model, case, found)
        if sentence is not None and sentence.startswith(NO_MEMORY) and model.side == "ours" and self._smaller(found):
            self._say(f"{name}: {sentence}; once more with less of the frames' state")
            self._close()
            sentence = self._try(model, case, found, SMALLER)
        if sentence == TIME_UP:
            self.results["left_out"].append({"name": name, "reason": TIME_UP})
            return
        found["case_seconds"] = time.perf_counter() - begin
        if sentence is None:
            self._rate = found["flops"] / found["seconds"]
            self._say(
                f"{name}: {found['seconds']:.3f} s, {found['frames_per_second']:.1f} frames/s, {found['tflops']:.0f} TFLOP/s"
            )
        else:
            found["failed"] = sentence
            self._say(f"{name}: {sentence}")
            self._close()  # what it left behind is not for the next case
        self.results["cases"].append(found)
        self._keep(self.results)

    @property
    def _left(self) -> float:
        """Seconds."""
        limit = self._options.limit_seconds
        return float("inf") if limit is None else self._begin + limit - time.perf_counter()

    def _smaller(self, found: dict[str, Any]) -> bool:
        """Whether the case kept what was chosen for it, so that less can be chosen."""
        return any("again_chunk_frames=" in override for override in found["overrides"][:1])

    def _share(self, model: Model, case: Case) -> float:
        """When a case's part of the time is over: as much as its operations are of all that are waiting."""
        if self._left == float("inf"):
            return self._left
        parts = [self._operations(*entry) for entry in self._waiting] or [1.0]
        return time.perf_counter() + self._left * parts[0] / sum(parts)

    def _operations(self, model: Model, case: Case) -> float:
        """Of a case with its warm-up, for a share of the time."""
        options, run = self._options, compose(list(model.overrides))
        if case.kind == "mixture":
            samples, times = (
                mixture_samples(case.stage, options.mixture_samples, options.seed),
                2.0 if model.side == "ours" else 1.2,
            )
        else:
            samples, times = [PackSample("video", case.rows, case.frames)], float(options.warmup + options.steps)
        return times * work_flops(samples, VideoMllamaConfig.from_dict(run.model), run)[0]

    def _try(self, model: Model, case: Case, found: dict[str, Any], part: float = 1.0) -> str | None:
        """Adds the numbers to `found`, or says why there are none.

        Args:
            part: of the frames' state that the case would keep.
        """
        try:
            subject = self._ready(model, case)
            if self._would_last(case, subject) > self._left:
                return TIME_UP
            found["overrides"] = list(self.fitted(model, case, subject, part))
            subject.use(compose(found["overrides"]))
            found |= measure(model, case, subject, self._options, self._left_out(case), self._share(model, case))
            found["parameters"], found["weight_bytes"] = subject.parameters, subject.weight_bytes
        except InputError as error:
            return str(error)
        except Exception as error:  # one case must not take the others' results
            if out_of_memory(error):
                return f"{NO_MEMORY}: {_first_line(error)}"
            found["traceback"] = traceback.format_exc().splitlines()
            return f"{type(error).__name__}: {_first_line(error)}"
        return None

    def _would_last(self, case: Case, subject: Subject) -> float:
        """Seconds of warm-up and the fewest steps at the rate of the case before; 0 where none was measured."""
        if self._rate is None:
            return 0.0
        if case.kind == "mixture":
            samples = mixture_samples(case.stage, self._options.mixture_samples, self._options.seed)
            return 2 * sample_flops(samples, subject)[0] / self._rate
        flops, _ = sample_flops([PackSample("video", case.rows, case.frames)], subject)
        return (self._options.warmup + 2) * flops / self._rate

    def fitted(self, model: Model, case: Case, subject: Subject, part: float = 1.0) -> tuple[str, ...]:
        """The model's overrides with what our side keeps of the case's frames on this card, unless those say it already."""
        if (
            model.side != "ours"
            or self._device.type != "cuda"
            or any("keep_activations_gib" in o for o in self._options.overrides)
        ):
            return model.overrides
        mixed = case.kind == "mixture"
        free, _ = torch.cuda.mem_get_info(self._device)  # contexts and libraries, this process' own too, are not the allocator's
        card = (free + torch.cuda.memory_reserved(self._device)) / GIB
        states = STATE_BYTES[model.optimizer] * subject.parameters
        beside: dict[str, Any] = {
            "limit": limit_gib(card, 0 if mixed else case.frames, mixed), "static": (self._static + states) / GIB,
            "element": subject.models.dtype.itemsize, "fused": all_fused(subject.models.vision), "fp8": model.precision == "fp8",
            "parameters": subject.parameters,
        }  # fmt: skip
        rows = STAGES[case.stage].sequence_length if mixed else case.rows
        kept, again = keep_gib(subject.model_config, rows=rows, **beside), again_frames(subject.model_config, **beside)
        return (f"vision.again_chunk_frames={again}", f"vision.keep_activations_gib={part * kept:.2f}", *model.overrides)

    def _left_out(self, case: Case) -> list[int]:
        """Samples of a mixture that found no memory or time on the reference's side: ours leaves them out as well."""
        found = [
            c for c in self.results["cases"] if c["side"] == "reference" and (c["kind"], c["stage"]) == (case.kind, case.stage)
        ]
        return [place for name in ("too_large", "not_reached") for place in found[-1].get(name, [])] if found else []

    def _ready(self, model: Model, case: Case) -> Subject:
        if self._subject is None:
            self._say(f"{model.name}, {case.name}: building the model")
            config = compose(list(model.overrides))
            if model.side == "reference" and model.optimizer == "none":
                self._subject = ReferenceWay(config, self._device)
            else:
                self._subject = Subject(config, self._device, updates=model.optimizer != "none")
            self._static = torch.cuda.memory_allocated(self._device) if self._device.type == "cuda" else 0
        return self._subject

    def _close(self) -> None:
        if self._subject is not None:
            self._subject.close()
            self._subject = None
        else:
            stop_layout()  # what was begun where building failed
            gc.collect()
            if self._device.type == "cuda":
                torch.cuda.empty_cache()


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0].strip() if lines else type(error).__name__
