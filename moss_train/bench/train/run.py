"""All cases behind each other: models built once for those that share one, results kept as they come, failures told and left."""

from __future__ import annotations

import gc
import itertools
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
from moss_train.bench.train.order import BUILD_SECONDS, Expected, case_steps, expected, in_order
from moss_train.feed.work import batch_work
from moss_train.frames.settings import GIB
from moss_train.parallel.layout import stop_layout
from moss_train.planning.flops import gpu_of, model_flops
from moss_train.planning.rates import read_table

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
        card: bytes of the device; None takes a GPU's own, and of a CPU refuses nothing.
    """

    def __init__(
        self, options: Options, device: torch.device, keep: Keep, say: Say, *, card: int | None = None
    ) -> None:  # fmt: skip
        self._options, self._device, self._keep, self._say = options, device, keep, say
        self._begin = time.perf_counter()
        self._subject: Subject | None = None
        self._group: tuple[str, ...] = ()
        self._rate: float | None = None
        """Operations a second of the newest case."""
        cuda = device.type == "cuda"
        self._card = int(torch.cuda.get_device_properties(device).total_memory) if cuda and card is None else card
        self._gpu = gpu_of(torch.cuda.get_device_name(device)) if cuda else None
        self._row = None if self._gpu is None else read_table().get(self._gpu.name)
        self.results: dict[str, Any] = {"cases": [], "left_out": []}

    def run(self, cases: Sequence[Case], left_out: Sequence[LeftOut]) -> dict[str, Any]:
        """Measure the machine, then the cases: each model's first within its share of the time, the others with what is left.

        Returns:
            `chip`, `cases`, `left_out`; a case that failed has `failed`, a sentence, in place of numbers.
        """
        self._leave_out(left_out)
        waiting = self._fitting(in_order(cases))
        self._keep(self.results)
        if waiting and self._left > 0:
            self._say("measuring what the chip reaches")
            self.results["chip"] = machine.measure(self._device)
        try:
            waiting = self._round(waiting, shared=True)
            waiting = self._round(waiting, shared=False)
        finally:
            self._close()
        self._leave_out([LeftOut(case.name, TIME_UP) for case in waiting])
        self._keep(self.results)
        return self.results

    def _leave_out(self, entries: Sequence[LeftOut]) -> None:
        self.results["left_out"] += [{"name": entry.name, "reason": entry.reason} for entry in entries]

    def _fitting(self, cases: Sequence[Case]) -> list[Case]:
        """Without those that the device does not hold by the plan; it is right to a hundredth, so no margin is taken."""
        if self._card is None:
            return list(cases)
        found = []
        for case in cases:
            peak = self._expected(case).peak
            if peak > self._card:
                sizes = f"{peak / GIB:.1f} GiB by the plan, and the device has {self._card / GIB:.1f}"
                self._leave_out([LeftOut(case.name, f"it takes {sizes}; give fewer --rows, --frames or --text-layers")])
            else:
                found.append(case)
        return found

    def _round(self, cases: Sequence[Case], *, shared: bool) -> list[Case]:
        """Measure, as long as there is time; those for which there was none.

        Args:
            shared: each model has as much of the time as its cases are of all that are left; else whoever comes first.
        """
        groups = [list(group) for _, group in itertools.groupby(cases, key=lambda case: case.group)]
        needs = [sum(self._lasts(case, whole=True) for case in group) for group in groups]
        later: list[Case] = []
        for number, group in enumerate(groups):
            rest = sum(needs[number:])
            part = needs[number] / rest if shared and rest > 0 and self._options.limit_seconds is not None else 1.0
            end = time.perf_counter() + self._left * part
            for case in group:
                if self._left <= 0 or self._lasts(case, whole=False) > end - time.perf_counter():
                    later.append(case)
                    continue
                self.results["cases"].append(self._measure(case, None if end == float("inf") else end))
                self._keep(self.results)
        return later

    @property
    def _left(self) -> float:
        """Seconds."""
        limit = self._options.limit_seconds
        return float("inf") if limit is None else self._begin + limit - time.perf_counter()

    def _expected(self, case: Case) -> Expected:
        try:
            return expected(case, self._options.seed, self._gpu, self._row)
        except InputError:  # the case itself says it
            return Expected(None, 0)

    def _lasts(self, case: Case, *, whole: bool) -> float:
        """Seconds of a case, by the plan or else at the rate of the case before; 0 where neither is known.

        Args:
            whole: with all its steps; else with one measured step.
        """
        step = self._expected(case).step
        if step is None:
            if self._rate is None:
                return 0.0
            step = case.micro_batches * case_flops(case, self._options.seed) / self._rate
        building = 0.0 if self._subject is not None and self._group == case.group else BUILD_SECONDS
        if self._device.type != "cuda":
            building = 0.0
        warmup, steps = case_steps(self._options, step)
        return building + step * (warmup + (steps if whole else 1))

    def _measure(self, case: Case, end: float | None) -> dict[str, Any]:
        """One case; what goes wrong with it is its result."""
        head: dict[str, Any] = {
            "name": case.name, "stage": case.stage, "precision": case.precision, "rows": case.rows, "frame_count": case.frames,
            "optimizer": case.optimizer, "updates": case.optimizer != "none", "micro_batches": case.micro_batches,
            "overrides": case.overrides,
            "data": "synthetic" if self._options.data is None else self._options.data.name,
        }  # fmt: skip
        begin = time.perf_counter()
        sentence = self._try(case, head, end)
        head["case_seconds"] = time.perf_counter() - begin
        if sentence is not None:
            head["failed"] = sentence
            self._say(f"{case.name}: {sentence}")
            self._close()  # what it left behind is not for the next case
        else:
            self._rate = head["flops"]["model"]["total"] / head["seconds"]["step"]
        return head

    def _try(self, case: Case, head: dict[str, Any], end: float | None) -> str | None:
        """Adds the numbers to `head`, or says why there are none."""
        try:
            subject = self._ready(case)
            head |= measure_case(case, subject, self._options, self._peaks(), end, self._say)
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
