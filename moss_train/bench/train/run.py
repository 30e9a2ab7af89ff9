"""All cases behind each other: models built once for those that share one, results kept as they come, failures told and left."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import torch

from model.config import VideoMllamaConfig
from model.errors import InputError
from moss_train.bench.packs import stage_pack
from moss_train.bench.subject import Subject
from moss_train.bench.train import machine
from moss_train.bench.train.cases import Case, LeftOut, Options
from moss_train.bench.train.measure import Say, measure_case
from moss_train.feed.work import batch_work
from moss_train.parallel.layout import stop_layout
from moss_train.planning.flops import model_flops

Keep = Callable[[dict[str, Any]], None]
TIME_UP = "the time of --limit-seconds was up"


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was short, the device's or the host's."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    words = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


class Bench:
    """Runs cases.

    Args:
        options: what is asked for.
        device: where.
        keep: is given the results so far behind every case.
        say: told of the progress.
    """

    def __init__(self, options: Options, device: torch.device, keep: Keep, say: Say) -> None:
        self._options, self._device, self._keep, self._say = options, device, keep, say
        self._begin = time.perf_counter()
        self._subject: Subject | None = None
        self._group: tuple[str, ...] = ()
        self._rate: float | None = None
        """Operations a second of the newest case."""
        self.results: dict[str, Any] = {"cases": [], "left_out": []}

    def run(self, cases: Sequence[Case], left_out: Sequence[LeftOut]) -> dict[str, Any]:
        """Measure the machine, then the cases.

        Returns:
            `chip`, `cases`, `left_out`; a case that failed has `failed`, a sentence, in place of numbers.
        """
        self.results["left_out"] = [{"name": entry.name, "reason": entry.reason} for entry in left_out]
        if cases:
            self._say("measuring what the chip reaches")
            self.results["chip"] = machine.measure(self._device)
        try:
            for case in cases:
                if self._time_is_up(case):
                    self.results["left_out"].append({"name": case.name, "reason": TIME_UP})
                    continue
                self.results["cases"].append(self._measure(case))
                self._keep(self.results)
        finally:
            self._close()
        self._keep(self.results)
        return self.results

    @property
    def _left(self) -> float:
        """Seconds."""
        limit = self._options.limit_seconds
        return float("inf") if limit is None else self._begin + limit - time.perf_counter()

    def _time_is_up(self, case: Case) -> bool:
        """Whether too little time is left for warm-up and one step, at the rate of the case before."""
        if self._rate is None or self._left <= 0:
            return self._left <= 0
        flops = case.micro_batches * case_flops(case, self._options.seed)
        return self._left < flops / self._rate * (self._options.warmup + 1)

    def _measure(self, case: Case) -> dict[str, Any]:
        """One case; what goes wrong with it is its result."""
        head: dict[str, Any] = {
            "name": case.name, "stage": case.stage, "precision": case.precision, "rows": case.rows, "frame_count": case.frames,
            "optimizer": case.optimizer, "updates": case.optimizer != "none", "micro_batches": case.micro_batches,
            "overrides": case.overrides,
            "data": "synthetic" if self._options.data is None else str(self._options.data),
        }  # fmt: skip
        begin = time.perf_counter()
        sentence = self._try(case, head)
        head["case_seconds"] = time.perf_counter() - begin
        if sentence is not None:
            head["failed"] = sentence
            self._say(f"{case.name}: {sentence}")
            self._close()  # what it left behind is not for the next case
        else:
            self._rate = head["flops"]["model"]["total"] / head["seconds"]["step"]
        return head

    def _try(self, case: Case, head: dict[str, Any]) -> str | None:
        """Adds the numbers to `head`, or says why there are none."""
        try:
            subject = self._ready(case)
            deadline = None if self._options.limit_seconds is None else self._begin + self._options.limit_seconds
            head |= measure_case(case, subject, self._options, self._peaks(), deadline, self._say)
        except InputError as error:
            return str(error)
        except Exception as error:  # one case, or one backend, must not take the others' results
            if out_of_memory(error):
                return f"out of memory: {_first_line(error)}"
            head["traceback"] = traceback.format_exc().splitlines()
            return f"{type(error).__name__}: {_first_line(error)}"
        return None

    def _peaks(self) -> dict[str, float | None]:
        chip = self.results["chip"]
        return {"peak": chip["peak_flops"], "product": chip["product_flops"], "sustained": chip["sustained_flops"]}

    def _ready(self, case: Case) -> Subject:
        """The case's model, built unless the case before had the same."""
        if self._subject is None or self._group != case.group:
            self._close()
            self._say(f"{case.name}: building the model")
            self._subject = Subject(
                case.config, self._device, updates=case.optimizer != "none", micro_batches=case.micro_batches,
                dataset_names=_dataset_names(case, self._options),
            )  # fmt: skip
            self._group = case.group
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


def case_flops(case: Case, seed: int) -> float:
    """Model operations of one synthetic micro-batch of a case."""
    config = case.config
    model = VideoMllamaConfig.from_dict(config.model)
    work = batch_work(stage_pack(model, case.stage, case.rows, case.frames, seed, pixels=False))
    return model_flops(model, work, config.stage, config.lora).total


def _dataset_names(case: Case, options: Options) -> list[str]:
    return ["synthetic"] if options.data is None else [dataset.name for dataset in case.config.data.datasets]


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0].strip() if lines else type(error).__name__
