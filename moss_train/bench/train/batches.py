"""Where micro-batches come from: the same synthetic packs in every step, or prepared shards through the real loader."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from data_pipeline.packing.batch import PackedMicroBatch
from model.errors import InputError
from moss_train.bench.packs import stage_pack
from moss_train.bench.subject import Subject
from moss_train.bench.train.cases import Case
from moss_train.config.schema import RunConfig


@dataclass(frozen=True)
class Fed:
    """Micro-batches of one step."""

    batches: list[PackedMicroBatch]
    wait: float = 0.0
    """Seconds that the step waited for them."""


class Batches(Protocol):
    """A source of steps."""

    same: bool
    """Whether every step gets the same."""

    def take(self, step: int, more: bool) -> Fed:
        """The micro-batches of a step.

        Args:
            step: from 1 on.
            more: another step follows.
        """
        ...


class Synthetic:
    """The same packs in every step, pinned as the loader's are.

    Args:
        case: what they look like.
        subject: whose model they are for.
        seed: of samples, tokens and pixels.
    """

    same = True

    def __init__(self, case: Case, subject: Subject, seed: int) -> None:
        pin = subject.layout.device.type == "cuda"
        made = [
            stage_pack(subject.model_config, case.stage, case.rows, case.frames, seed + index)
            for index in range(case.micro_batches)
        ]
        self._batches = [dataclasses.replace(b, frames=b.frames.pin_memory()) for b in made] if pin else made

    def take(self, step: int, more: bool) -> Fed:
        """The packs."""
        return Fed(self._batches)


class Shards:
    """Prepared shards, decoded by the loader's processes and read by a run's feed.

    Args:
        config: of the run: data and stage.
        subject: whose model they are for.
        folder: for the list of samples left out.

    Raises:
        InputError: the folder's shards or tokenizer do not fit, or a package that reads them is missing.
    """

    same = False

    def __init__(self, config: RunConfig, subject: Subject, folder: Path) -> None:
        try:
            from data_pipeline.loader import Loader, build_loader
            from data_pipeline.text.tokenizer import Tokenizer
            from moss_train.feed.agreement import Agreement
            from moss_train.feed.feed import Feed
        except ImportError as error:
            raise InputError(f"--data reads shards, for which {error.name} is missing; install moss-train whole") from None
        self._count = config.train.global_batch_size
        tokenizer = Tokenizer.from_file(Path(config.data.root) / config.data.tokenizer)

        def build() -> Loader:
            return build_loader(
                config.data, config.stage, subject.model_config, tokenizer, rank=0, world_size=1, split="train",
                ledger=folder / "quarantine",
            )  # fmt: skip

        agreement = Agreement(subject.layout, patience=config.data.worker_timeout_seconds)
        names = [dataset.name for dataset in config.data.datasets]
        self._feed = Feed(build, agreement, subject.layout, names, ahead=config.data.worker_processes != 0)

    def take(self, step: int, more: bool) -> Fed:
        """The next packs.

        Raises:
            InputError: the data have ended.
        """
        begin = time.perf_counter()
        delivery = self._feed.read(self._count, step, more=more)
        if len(delivery.batches) < self._count:
            raise InputError(f"--data ended at step {step}: its shards give too few packs; give more samples or fewer --steps")
        return Fed(delivery.batches, time.perf_counter() - begin)

    def close(self) -> None:
        """End the loader's processes."""
        self._feed.close()


@contextmanager
def batches_of(case: Case, subject: Subject, data: Path | None, seed: int) -> Iterator[Batches]:
    """The case's source; its processes end with it."""
    if data is None:
        yield Synthetic(case, subject, seed)
        return
    with tempfile.TemporaryDirectory(prefix="moss-bench-") as folder:
        shards = Shards(case.config, subject, Path(folder))
        try:
            yield shards
        finally:
            shards.close()
