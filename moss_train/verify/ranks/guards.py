"""What one rank finds out, all ranks act on alike: copies that differ, work that fails, gradients that are no numbers."""

from __future__ import annotations

import math
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
from moss_train.verify.ranks.agreed import everyone, gather_reasons
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
        self._saved: list[torch.Tensor] = []
        """State at the checkpoint."""
        self._behind: tuple[tuple[float, float], list[torch.Tensor]] = ((0.0, 0.0), [])
        """Loss and norm of the update behind it, and the state then."""

    def run(self) -> None:
        """All checks, one after the other on the same model."""
        self._training.update(0)
        checks = [self._agree, self._skip, self._rewind, self._overlap, self._failed_save]
        for check in [self._copies, *checks] if self._layout.world_size > 1 else checks:
            check()

    @contextmanager
    def _case(self, check: str) -> Iterator[CaseResult]:
        begin = time.monotonic()
        result = CaseResult(
            check, self._name, self._layout.world_size, self._kind.modules, self._kind.dtype, self._training.made_of
        )
        yield result
        gather_reasons(result)
        result.seconds = time.monotonic() - begin
        self._tell(result)

    def _copies(self) -> None:
        """A bit flipped on one rank is found on all, whichever ranks share the parameter, with its name and the rank."""
        models, layout = self._training.models, self._layout
        copies = Copies(models.chunks, models.unit, layout, every=1)
        with self._case("copies") as result:
            kinds = len(copies._shared)
            # Replicas with context ranks, tensor ranks, and for the tower the world.
            wanted = (layout.data_size * layout.sizes.context > 1) + (layout.sizes.tensor > 1) + 1
            result.expect(kinds == wanted, f"{kinds} kinds of copies are compared, not {wanted}")
            before = sentence_of(lambda: copies.compare(1))
            result.expect(before == "", f"equal copies are said to differ: {before}")
            counts = [self._flipped(copies, kind, result) for kind in range(everyone(kinds)[-1])]
            result.figures = {"groups": kinds, "ranks_told": min(counts, default=0)}
            after = sentence_of(lambda: copies.compare(3))
            result.expect(after == "", f"copies that are equal again are said to differ: {after}")

    def _flipped(self, copies: Copies, kind: int, result: CaseResult) -> int:
        """How many ranks are told of a bit flipped on the last one, in the largest parameter of a kind of sharing."""
        name, parameter = "", None
        if self._last:
            shared = copies._shared[kind]
            name, parameter = max(zip(shared.names, shared.parameters, strict=True), key=lambda pair: pair[1].numel())
            flip(parameter)
        told = everyone(sentence_of(lambda: copies.compare(2)))
        if parameter is not None:
            flip(parameter)
        name, rank = everyone(name)[-1], self._layout.world_size - 1
        result.expect(all(told) and len(set(told)) == 1, f"a flipped bit of {name} gives the ranks {told}")
        named = all(f"parameter {name} " in sentence and f"rank {rank}" in sentence for sentence in told)
        result.expect(named, f"a flipped bit of {name} on rank {rank} is told as {told}")
        return sum(bool(sentence) for sentence in told)

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
            result.expect(math.isfinite(loss) and 0 < norm < math.inf, f"the next update has loss {loss} and norm {norm}")
            after = self._training.state()
            result.expect(differing(after, before)[0] > 0, "the next update changes no tensor")
            spoilt = sum(not tensor.isfinite().all().item() for tensor in after)
            result.expect(spoilt == 0, f"{spoilt} tensors of rank {self._layout.rank} hold no numbers after the next update")

    def _rewind(self) -> None:
        """All ranks take back the checkpoint, and the update behind it gives what it gave before, bit for bit."""
        training = self._training
        with self._case("rewind") as result:
            checkpoint = training.save(self._folder, 2)
            before = self._saved = training.state()
            first = training.update(3)
            after = training.state()
            self._behind = (first, after)
            result.expect(differing(after, before)[0] > 0, "the update behind the checkpoint changes no tensor")
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

    def _overlap(self) -> None:
        """Gradients summed beside the return of frames' give the same update, bit for bit."""
        training, (first, after) = self._training, self._behind
        with self._case("overlap") as result:
            training.load(self._folder / "checkpoints" / "step_00000002")
            training.overlap(True)
            again = training.update(3)
            training.overlap(False)
            ended, total = differing(training.state(), after)
            result.figures = {"tensors": total, "differ_at_the_end": ended}
            result.expect(again == first, f"with train.overlap_grad_reduce the update has loss and norm {again}, not {first}")
            result.expect(ended == 0, f"{ended} of {total} tensors differ with train.overlap_grad_reduce")

    def _failed_save(self) -> None:
        """Where one rank cannot write, all are told, and the checkpoint before stays the newest and whole."""
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
            trouble = sentence_of(lambda: self._training.load(self._folder / "checkpoints" / "step_00000002"))
            result.expect(trouble == "", f"the checkpoint before is broken: {trouble}")
            bad, total = differing(self._training.state(), self._saved)
            result.expect(bad == 0, f"{bad} of {total} tensors of the checkpoint before are not what was saved")

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
