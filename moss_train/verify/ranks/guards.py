"""What one rank finds out, all ranks act on alike: copies that differ, work that fails, gradients that are no numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist

from model.errors import InputError
from moss_train.config.guard import GuardConfig
from moss_train.engines.models import Models
from moss_train.engines.optimization import Optimization
from moss_train.feed.agreement import Agreement, CommonError
from moss_train.feed.feed import Delivery
from moss_train.guards.copies import Copies, checksum
from moss_train.guards.policy import Action, Guard
from moss_train.guards.rewind import rewind
from moss_train.monitors.base import Update
from moss_train.parallel.layout import ParallelLayout
from moss_train.verify.ranks.findings import CaseResult
from moss_train.verify.ranks.names import Kind
from moss_train.verify.ranks.training import Training, differing

Tell = Callable[[CaseResult], None]


@dataclass
class _Running:
    """What a rewind takes of a run's session."""

    agreement: Agreement
    models: Models
    optimization: Optimization
    layout: ParallelLayout


def everyone(value: Any) -> list[Any]:
    """A value of every rank, on every rank."""
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found


def sentence_of(work: Callable[[], Any]) -> str:
    """What this rank raises as a common error; empty where it raises nothing."""
    try:
        work()
    except CommonError as error:
        return str(error)
    return ""


class Guards:
    """The checks of one layout.

    Args:
        folder: empty, for checkpoints.
    """

    def __init__(self, kind: Kind, name: str, layout: ParallelLayout, folder: Path, tell: Tell) -> None:
        self._kind, self._name, self._layout, self._folder, self._tell = kind, name, layout, folder, tell
        self._training = Training(kind, layout)
        self._agreement = Agreement(layout)
        self._last = layout.rank == layout.world_size - 1

    def run(self) -> None:
        """All checks, one after the other on the same model."""
        self._training.update(0)
        checks = [self._agree, self._skip, self._rewind, self._failed_save]
        for check in [self._copies, *checks] if self._layout.world_size > 1 else checks:
            check()

    @contextmanager
    def _case(self, check: str) -> Iterator[CaseResult]:
        begin = time.monotonic()
        result = CaseResult(
            check, self._name, self._layout.world_size, self._kind.modules, self._kind.dtype, self._training.made_of
        )
        yield result
        result.reasons = list(dict.fromkeys(reason for reasons in everyone(result.reasons) for reason in reasons))
        result.seconds = time.monotonic() - begin
        self._tell(result)

    def _copies(self) -> None:
        """A bit flipped on one rank is found on all."""
        models = self._training.models
        copies = Copies(models.chunks, models.unit, self._layout, every=1)
        with self._case("copies") as result:
            before = sentence_of(lambda: copies.compare(1))
            result.expect(before == "", f"equal copies are said to differ: {before}")
            parameter = max(models.unit.parameters(), key=torch.Tensor.numel)  # every rank holds the tower
            if self._last:
                flip(parameter)
            told = everyone(sentence_of(lambda: copies.compare(2)))
            if self._last:
                flip(parameter)
            result.figures = {"groups": len(copies._shared), "ranks_told": sum(bool(sentence) for sentence in told)}
            result.expect(all(told) and len(set(told)) == 1, f"a flipped bit gives the ranks {told}")
            after = sentence_of(lambda: copies.compare(3))
            result.expect(after == "", f"copies that are equal again are said to differ: {after}")

    def _agree(self) -> None:
        """Bad input that one rank finds ends the work of all, with its sentence; the next work goes on."""

        def work() -> int:
            if self._last:
                raise InputError("the last rank cannot read its shard; give it another")
            return 1

        with self._case("agreement") as result:
            told = everyone(self._sentence(work))
            wanted = "the last rank cannot read its shard"
            result.expect(all(wanted in sentence for sentence in told), f"the ranks were told {told}")
            values = everyone(self._agreement.together(lambda: self._layout.rank))
            result.expect(values == list(range(self._layout.world_size)), f"then the work gave {values}")

    def _sentence(self, work: Callable[[], int]) -> str:
        try:
            self._agreement.together(work)
        except InputError as error:  # in a world of one it passes as it is
            return str(error)
        return ""

    def _skip(self) -> None:
        """Gradients that are no numbers on one rank leave the weights of all as they are; the next update is applied."""
        with self._case("skip") as result:
            before = self._training.state()
            actions = everyone(self._poisoned(1, "skip"))
            result.expect(set(actions) == {Action.SKIP.name}, f"the ranks decided {actions}")
            bad, total = differing(self._training.state(), before)
            result.figures = {"tensors": total, "differ": bad}
            result.expect(bad == 0, f"{bad} of {total} tensors differ after an update that was left out")
            loss, norm = self._training.update(2)
            result.expect(loss == loss and 0 < norm < float("inf"), f"the next update has loss {loss} and norm {norm}")

    def _rewind(self) -> None:
        """All ranks take back the checkpoint, and the update behind it gives what it gave before, bit for bit."""
        training = self._training
        with self._case("rewind") as result:
            checkpoint = training.save(self._folder, 2)
            before = training.state()
            first = training.update(3)
            after = training.state()
            actions = everyone(self._poisoned(4, "rewind"))
            result.expect(set(actions) == {Action.REWIND.name}, f"the ranks decided {actions}")
            running = _Running(self._agreement, training.models, training.optimization, self._layout)
            step = rewind(cast(Any, running), checkpoint, "grad_norm is nan in step 4")
            result.expect(step == 2, f"step {step} was taken back, not 2")
            bad, total = differing(training.state(), before)
            result.expect(bad == 0, f"{bad} of {total} tensors are not those of the checkpoint")
            again = training.update(3)
            ended, _ = differing(training.state(), after)
            result.figures = {"tensors": total, "differ_when_loaded": bad, "differ_at_the_end": ended}
            result.expect(again == first, f"the update behind it has loss and norm {again}, not {first}")
            result.expect(ended == 0, f"{ended} of {total} tensors differ after the same update")

    def _failed_save(self) -> None:
        """Where one rank cannot write, all are told, and the checkpoint before stays the newest."""
        with self._case("failed save") as result:
            wall = self._folder / "wall"
            if self._last:
                wall.parent.mkdir(parents=True, exist_ok=True)
                wall.write_text("a file where a folder should be")
            dist.barrier()
            run_dir = wall if self._last else self._folder
            told = everyone(sentence_of(lambda: self._training.save(run_dir, 9)))
            result.expect(all("cannot be written" in sentence for sentence in told), f"the ranks were told {told}")
            left = sorted(path.name for path in (self._folder / "checkpoints").iterdir())
            result.expect(left == ["step_00000002"], f"the folder holds {left}")

    def _poisoned(self, number: int, policy: str) -> str:
        """What this rank decides about an update whose gradients are no numbers on the last rank."""
        training = self._training
        statistics = training.accumulate(number)
        if self._last:
            for parameter in (p for p in training.parameters() if hasattr(p, "main_grad")):
                cast(Any, parameter).main_grad.fill_(float("nan"))
        norm = training.optimization.prepare()
        update = Update(number, Delivery([], {}, 0, 0, 0.0, 0.0), statistics, norm, {})
        return Guard(GuardConfig(non_finite=policy)).judge(update).name


def flip(parameter: torch.nn.Parameter) -> None:
    """Change the lowest bit of the last number."""
    before = checksum(parameter)
    kind = torch.int16 if parameter.element_size() == 2 else torch.int32
    parameter.detach().view(-1).view(kind)[-1] ^= 1
    assert not torch.equal(before, checksum(parameter))
