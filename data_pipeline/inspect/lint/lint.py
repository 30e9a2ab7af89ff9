"""Running all rules over whole sources, shard by shard, on one or several processes."""

from __future__ import annotations

import hashlib
import itertools
import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from data_pipeline.inspect.entries import Entry, Part, parts_of, read_entries
from data_pipeline.inspect.lint.decode_rules import decode_findings
from data_pipeline.inspect.lint.media_rules import media_findings
from data_pipeline.inspect.lint.realtime_rules import realtime_findings
from data_pipeline.inspect.lint.report import LintReport
from data_pipeline.inspect.lint.rules import ERROR, RULES, Finding
from data_pipeline.inspect.lint.stage_rules import stage_findings
from data_pipeline.inspect.lint.text_rules import Found, parse, text_findings
from data_pipeline.packing.plan import PlanRules
from data_pipeline.schema import Sample
from data_pipeline.shards.info import check_sizes, read_summary
from data_pipeline.shards.writer import SUMMARY
from data_pipeline.text.tokenizer import Tokenizer
from model.errors import InputError


@dataclass(frozen=True)
class LintSettings:
    """Which checks are made beyond those of every sample."""

    rules: PlanRules | None = None
    """A stage's; None leaves stages out."""
    tokenizer: str | None = None
    """File; needed with `rules`."""
    decode: bool = False
    realtime: bool = False
    examples: int = 5
    """Kept of each rule."""


@dataclass
class Identity:
    """What tells a sample from others."""

    key: str
    where: str
    content: bytes
    """Digest of the fields and the media."""
    media: list[tuple[str, bytes]]
    """File and digest of each."""


@dataclass
class PartReport:
    """What was found in one part."""

    report: LintReport
    identities: list[Identity] = field(default_factory=list)


def lint(
    sources: Sequence[str],
    settings: LintSettings,
    *,
    workers: int = 1,
    max_errors: int | None = None,
    on_part: Callable[[int, int], None] | None = None,
) -> LintReport:
    """Check every sample of folders of shards and annotation files.

    Args:
        workers: processes; 1 works in this one.
        max_errors: reading stops behind the part in which so many errors are reached.
        on_part: called with (parts read, parts in all).

    Returns:
        What was found; the same whatever the number of workers.

    Raises:
        InputError: a source or the tokenizer is missing.
    """
    parts = [part for source in sources for part in parts_of(source)]
    if settings.rules is not None:
        Tokenizer.from_file(settings.tokenizer or "")  # a wrong file is told here, not by a worker
    report = LintReport(settings.examples)
    for source in sources:
        _add(report, "", source, _folder_findings(Path(source)))
    seen = _Seen()
    for number, found in enumerate(_in_order(parts, settings, workers), start=1):
        report.merge(found.report)
        seen.add(parts[number - 1].source, found.identities, report)
        if on_part is not None:
            on_part(number, len(parts))
        if max_errors is not None and report.total(ERROR) >= max_errors and number < len(parts):
            report.stopped = True
            break
    if not report.stopped:
        _check_counts(sources, seen, report)
    return report


def lint_part(part: Part, settings: LintSettings) -> PartReport:
    """Check the samples of one shard, or of some lines of an annotation file."""
    tokenizer = Tokenizer.from_file(settings.tokenizer or "") if settings.rules is not None else None
    found = PartReport(LintReport(settings.examples))
    try:
        for entry in read_entries(part):
            found.report.samples += 1
            _add(found.report, entry.key, entry.where, _entry_findings(entry, settings, tokenizer, part.is_shard))
            found.identities.append(_identity(entry))
    except InputError as error:
        _add(found.report, "", part.path.name, iter([("shard-unreadable", str(error))]))
    return found


def _entry_findings(entry: Entry, settings: LintSettings, tokenizer: Tokenizer | None, in_shard: bool) -> Found:
    if not entry.key or "." in entry.key:
        yield "key", f"the key is {entry.key!r}"
    sample, faults = _sample(entry)
    yield from faults
    if sample is None:
        return
    yield from text_findings(sample)
    if settings.realtime:
        yield from realtime_findings(sample, tokenizer)
    of_media = list(media_findings(sample, entry.members, in_shard))
    yield from of_media
    if any(RULES[rule].severity == ERROR for rule, _ in of_media):
        return
    slots = None
    if settings.rules is not None and tokenizer is not None:
        plan, faults = stage_findings(sample, tokenizer, settings.rules)
        yield from faults
        slots = plan.slots if plan is not None else None
    if settings.decode:
        yield from decode_findings(sample, entry.members, slots)


def _sample(entry: Entry) -> tuple[Sample | None, list[tuple[str, str]]]:
    if entry.text is None:
        return None, [("json", "there is no json member")]
    try:
        values = json.loads(entry.text)
    except (ValueError, RecursionError) as error:
        return None, [("json", f"{type(error).__name__}: {error}")]
    return parse(values, "the sample")


def _identity(entry: Entry) -> Identity:
    media = []
    whole = hashlib.blake2b(entry.text or b"", digest_size=16)
    for name, content in sorted(entry.members.items()):
        if isinstance(content, Path) and not content.is_file():
            whole.update(str(content).encode())
            continue
        content = content.read_bytes() if isinstance(content, Path) else content
        digest = hashlib.blake2b(content, digest_size=16).digest()
        whole.update(digest)
        media.append((name, digest))
    return Identity(entry.key, entry.where, whole.digest(), media)


class _Seen:
    """Keys by source, and contents of all sources, read so far."""

    def __init__(self) -> None:
        self.keys: dict[str, dict[str, str]] = {}
        self._contents: dict[bytes, str] = {}
        self._media: dict[bytes, str] = {}

    def add(self, source: str, identities: Sequence[Identity], report: LintReport) -> None:
        """Enter samples, and report those that were there."""
        keys = self.keys.setdefault(source, {})
        for one in identities:
            name = f"{one.key} in {one.where}"
            if one.key and one.key in keys:
                report.add(Finding("duplicate-key", one.key, one.where, f"also in {keys[one.key]}"))
            keys.setdefault(one.key, one.where)
            twin = self._contents.setdefault(one.content, name)
            if twin != name:
                report.add(Finding("duplicate-sample", one.key, one.where, f"the same as {twin}"))
            for file, digest in one.media:
                first = self._media.setdefault(digest, name)
                if first != name and twin == name:
                    report.add(Finding("duplicate-media", one.key, one.where, f"{file} is also a file of {first}"))


def _folder_findings(folder: Path) -> Found:
    if not folder.is_dir():
        return
    if not (folder / ".nv-meta" / "dataset.yaml").is_file():
        yield "no-index", f"{folder / '.nv-meta' / 'dataset.yaml'} does not exist"
    if not (folder / SUMMARY).is_file():
        yield "no-summary", str(folder)
        return
    try:
        check_sizes(folder)
    except InputError as error:
        yield "summary-mismatch", str(error)


def _check_counts(sources: Sequence[str], seen: _Seen, report: LintReport) -> None:
    for source in sources:
        folder = Path(source)
        if (folder / SUMMARY).is_file():
            stated, found = read_summary(folder).get("samples"), len(seen.keys.get(source, {}))
            if stated != found:
                text = f"{SUMMARY} states {stated} samples but the shards hold {found} different keys"
                report.add(Finding("summary-mismatch", "", source, text))


def _add(report: LintReport, key: str, where: str, found: Found) -> None:
    for rule, text in found:
        report.add(Finding(rule, key, where, text))


def _in_order(parts: Sequence[Part], settings: LintSettings, workers: int) -> Iterator[PartReport]:
    """Reports in the order of the parts; a few parts ahead at most are worked on."""
    work = partial(lint_part, settings=settings)
    if workers <= 1 or len(parts) == 1:
        yield from map(work, parts)
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy the tokenizer's threads half
    with ProcessPoolExecutor(min(workers, len(parts)), mp_context=context) as pool:
        waiting = iter(parts)
        running: list[Future[PartReport]] = [pool.submit(work, part) for part in itertools.islice(waiting, 2 * workers)]
        try:
            while running:
                found = running.pop(0).result()
                running += [pool.submit(work, part) for part in itertools.islice(waiting, 1)]
                yield found
        finally:
            for future in running:
                future.cancel()
