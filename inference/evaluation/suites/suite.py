"""What a benchmark is to us: an importer of its released files, a scorer of traces, and a way from items to metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inference.evaluation.items import Item, Metrics
from inference.evaluation.judge.judge import Judge
from inference.evaluation.schema import Scenario, Trace

Pairs = Sequence[tuple[Trace, Scenario]]


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """How a benchmark becomes scenarios."""

    videos: Path
    """Folder below which the benchmark's videos lie."""
    fps: float = 1.0
    """Frames a second that the model is shown."""
    max_frames: int | None = None
    """Most frames of one clip; a longer one is shown in its last so many (push) or evenly thinned (offline). None: no limit."""
    context_seconds: float | None = None
    """An offline clip reaches back so far from its question; None: as the suite's main table has it."""
    prompts: Path | None = None
    """YAML file of templates in place of the suite's own, such as the wording of the official release."""
    limit: int | None = None
    """Only the first so many entries."""
    release: str = ""
    """What the user calls the release of the annotations; the manifest repeats it."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a set of scenarios was made of; kept beside them and beside every score."""

    suite: str
    release: str
    annotations: dict[str, str]
    """SHA-256 by file name."""
    prompts: dict[str, str]
    """Templates by name, as used."""
    prompts_sha256: str
    fps: float
    max_frames: int | None
    context_seconds: float | None
    license: str
    """Of the annotations, as their authors state it; videos have their own."""
    source: str
    """Address of the release or paper."""
    scenarios: int
    items: int
    missing_videos: list[str] = field(default_factory=list)
    """Named by the annotations and not found; their entries are left out and counted here."""
    notes: list[str] = field(default_factory=list)
    """Where the suite's protocol could not be followed to the letter."""


@dataclass(frozen=True)
class Imported:
    """An importer's result. Videos are absolute or relative to `ImportOptions.videos`."""

    scenarios: list[Scenario]
    manifest: Manifest


@dataclass(frozen=True, kw_only=True)
class Suite:
    """One benchmark.

    Attributes:
        name: as commands and `Scenario.suite` have it.
        title: for tables.
        modes: of the traces that it scores.
        main: the metric that stands for it in a table of many suites.
        score: items of all given traces, in their order; traces of other modes give none. Takes the judge, or None where no
            judge was given: what needs one then has no item.
        aggregate: metrics of any multiset of these items; called thousands of times for intervals, so it only adds and divides.
        load: importer; None for suites that no release belongs to.
        needs_judge: whether some items need one.
        higher_is_better: by metric, for those where less is better; all others are True.
        about: one line of what it measures, with the paper.
    """

    name: str
    title: str
    modes: tuple[str, ...]
    main: str
    score: Callable[[Pairs, Judge | None], list[Item]]
    aggregate: Callable[[Sequence[Item]], Metrics]
    load: Callable[[Path, ImportOptions], Imported] | None = None
    needs_judge: bool = False
    higher_is_better: dict[str, bool] = field(default_factory=dict)
    about: str = ""
    extra: dict[str, Any] = field(default_factory=dict)
