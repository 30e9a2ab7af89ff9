"""A small streaming evaluation between two steps: weights travel to the ranks that run scenarios, the others wait.

The streaming engine lies above this package and comes in as a `Scorer`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from model.conversion.live import stream_hf_weights
from model.conversion.table import hf_shapes
from model.errors import InputError
from model.lora.merge_live import merged_reader
from moss_train.evaluation.undisturbed import undisturbed
from moss_train.feed.agreement import Agreement, CommonError
from moss_train.parallel.world import TIMEOUT

if TYPE_CHECKING:
    from moss_train.setup import Session

PREFIX = "eval_streaming_"
_ROOM = 1.25  # of the weights' bytes: caches, features, logits
_MORE_ROOM = 2 << 30  # bytes: the largest parameter twice, workspaces


class Scorer(Protocol):
    """Runs scenarios on the weights that it is given, on one or several ranks."""

    def begin(self, device: torch.device, dtype: torch.dtype) -> None:
        """Get ready for the weights of a model that is to live there."""

    def take(self, name: str, tensor: Tensor) -> None:
        """One published tensor, which may be the training's own: it must not be written to."""

    def run(self, share: int, shares: int) -> Any:
        """What came out of one share of the scenarios; it can be pickled."""

    def score(self, parts: Iterable[Any]) -> dict[str, float]:
        """Figures from what came out of all shares."""

    def forget(self) -> None:
        """Let go of the weights."""


MakeScorer = Callable[["Session"], Scorer]


class StreamingEvaluation:
    """An evaluator whose errors never end a run: they become one warning and a record without figures.

    Memory of a rank that runs scenarios, beside its training: the weights in the run's dtype (21 GB at 11B in bf16; those that
    the rank holds whole, in memory that it has already, cost nothing), about a quarter of that for caches, and one parameter in
    flight (2 GB). The other ranks need nothing.

    Args:
        session: of this rank; all ranks make the evaluator.
        scorer: on every rank.
    """

    name = "streaming"

    def __init__(self, session: Session, scorer: Scorer) -> None:
        settings, layout = session.config.evaluation, session.layout
        self._session, self._scorer, self._settings = session, scorer, settings
        self._agreement = Agreement(layout, patience=settings.streaming_seconds)
        self._shares = min(settings.streaming_ranks, layout.world_size)
        self._weights_group: Any = None
        self._results_group: Any = None
        if self._shares > 1:
            ranks, patience = list(range(self._shares)), TIMEOUT + timedelta(seconds=settings.streaming_seconds)
            self._weights_group = dist.new_group(ranks)
            self._results_group = dist.new_group(ranks, timeout=patience, backend="gloo")
        self._failure: Exception | None = None

    @classmethod
    def maker(cls, make_scorer: MakeScorer) -> Callable[[Session], StreamingEvaluation | None]:
        """What makes the evaluator where a run wants one."""

        def make(session: Session) -> StreamingEvaluation | None:
            config = session.config
            if not config.evaluation.streaming_every:
                return None
            return cls(session, session.agreement.together(lambda: make_scorer(session)))

        return make

    def due(self, step: int, last: bool) -> bool:
        """Every `evaluation.streaming_every` steps and after the last."""
        return step > 0 and (last or step % self._settings.streaming_every == 0)

    def run(self, step: int) -> dict[str, Any]:
        """Evaluate; every rank calls it and gets the same record."""
        begin = time.perf_counter()
        with undisturbed(self._session.layout.device):
            try:
                record = self._evaluate(step)
            except Exception as error:
                if self._session.layout.world_size > 1 and not isinstance(error, CommonError):
                    raise  # ranks that do not answer, which is no affair of the evaluation
                return self._failed(step, error)
            finally:
                self._failure = None
                self._scorer.forget()
        record[f"{PREFIX}seconds"] = time.perf_counter() - begin
        return self._agreement.from_first(record)  # type: ignore[no-any-return]

    def _evaluate(self, step: int) -> dict[str, Any]:
        """The record on rank 0, empty figures elsewhere."""
        rank = self._session.layout.rank
        self._receive()
        part = self._agreement.together(self._run_share)
        parts: list[Any] = [part]
        if self._results_group is not None and rank < self._shares:
            parts = [None] * self._shares
            dist.gather_object(part, parts if rank == 0 else None, dst=0, group=self._results_group)
        scores = self._agreement.together(lambda: self._scorer.score(parts) if rank == 0 else {})
        return {"step": step} | {f"{PREFIX}{name}": value for name, value in scores.items()}

    def _receive(self) -> None:
        """The weights of this moment, to the ranks that run scenarios. A rank that cannot take them still passes them on."""
        session = self._session
        models, rank = session.models, session.layout.rank
        works = rank < self._shares
        shapes = hf_shapes(models.config)
        if works:
            self._try(lambda: self._scorer.begin(self._device(shapes), models.dtype))
        reader = merged_reader(models.chunks, models.vision)
        for name, tensor in stream_hf_weights(models.chunks, models.vision, reader):
            if not works:
                continue
            if self._weights_group is not None:
                tensor = self._shared(tensor, shapes[name])
            assert tensor is not None
            self._try(partial(self._scorer.take, name, tensor))

    def _shared(self, tensor: Tensor | None, shape: Sequence[int]) -> Tensor:
        """Rank 0's tensor on all ranks that run scenarios."""
        dtype, device = self._session.models.dtype, self._session.layout.device
        whole = torch.empty(tuple(shape), dtype=dtype, device=device) if tensor is None else tensor.to(dtype).contiguous()
        dist.broadcast(whole, src=0, group=self._weights_group)
        return whole

    def _run_share(self) -> Any:
        if self._session.layout.rank >= self._shares:
            return None
        if self._failure is not None:
            raise self._failure
        return self._scorer.run(self._session.layout.rank, self._shares)

    def _try(self, action: Callable[[], None]) -> None:
        """The first failure is kept until all ranks can be told."""
        if self._failure is None:
            try:
                action()
            except Exception as error:
                self._failure = error
                self._scorer.forget()

    def _device(self, shapes: dict[str, tuple[int, ...]]) -> torch.device:
        """Where this rank's model lives."""
        own, wanted = self._session.layout.device, self._settings.streaming_device
        if wanted == "cpu" or own.type == "cpu":
            return torch.device("cpu")
        if wanted == "cuda":
            return own
        parameters = sum(torch.Size(shape).numel() for shape in shapes.values())
        free = torch.cuda.mem_get_info(own)[0] + torch.cuda.memory_reserved(own) - torch.cuda.memory_allocated(own)
        fits = parameters * self._session.models.dtype.itemsize * _ROOM + _MORE_ROOM < free
        return own if fits else torch.device("cpu")

    def _failed(self, step: int, error: Exception) -> dict[str, Any]:
        sentence = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        if self._session.layout.rank == 0:
            print(
                f"moss: the streaming evaluation after step {step} failed, training goes on: {sentence}",
                file=sys.stderr,
                flush=True,
            )
        return {"step": step, f"{PREFIX}failed": sentence}
