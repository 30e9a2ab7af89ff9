"""From parts to data sets: which rows stay, annotation files, shards, scenarios."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from data_pipeline.generator.build.config import BuildConfig
from data_pipeline.generator.build.folder import BuildFolder, write_json
from data_pipeline.generator.gates.balance import Answers, Pairs, too_frequent
from data_pipeline.generator.gates.duplicates import SIGNATURES, near_duplicates, read_signatures
from model.errors import InputError

ORDER = ("test", "validation", "train")
"""Of two rows that are nearly the same the earlier one stays: the evaluation keeps its rows."""
EXAMPLES = 3

Dropped = dict[str, dict[int, str]]
"""Split -> number of a row in it -> why it is left out."""


def dropped_rows(folder: BuildFolder, config: BuildConfig) -> Dropped:
    """Which rows the gates leave out that need all of them; each gate looks at the rows that those before it have left."""
    dropped: Dropped = {split: {} for split in ORDER}
    gates = config.gates
    if gates.near_duplicates < 1:
        _drop_duplicates(folder, gates.near_duplicates, dropped)
    if gates.blind < 1 or gates.most_equal_answers < 1:
        for split in ORDER:
            left = partial(_left, folder, split, dropped[split])
            if gates.blind < 1:
                answers = Answers()
                for _, pairs in left():
                    answers.add(pairs)
                guessed = [number for number, pairs in left() if answers.blind_share(pairs) > gates.blind]
                dropped[split].update(dict.fromkeys(guessed, "its answers can be guessed without the video"))
            if gates.most_equal_answers < 1:
                frequent = too_frequent(left, gates.most_equal_answers)
                dropped[split].update(dict.fromkeys(frequent, "one of its answers is too frequent"))
    return dropped


def write_annotations(folder: BuildFolder, split: str, dropped: dict[int, str]) -> dict[str, int]:
    """`samples/<split>.jsonl`, with `_questions` and `_narration` where there are such samples; returns rows by file name.

    A row that is left out takes the other samples of its clip with it.
    """
    target = folder.path / "samples"
    target.mkdir(exist_ok=True)
    counts = {}
    for name, stem in (("samples", split), ("questions", f"{split}_questions"), ("narration", f"{split}_narration")):
        path = target / f"{stem}.jsonl"
        temporary = target / f".{stem}.{os.getpid()}.tmp"
        count = 0
        with temporary.open("w", encoding="utf-8") as file:
            for line in _kept_lines(folder, split, f"{name}.jsonl", dropped):
                file.write(line)
                count += 1
        if count:
            os.replace(temporary, path)
            counts[stem] = count
        else:
            temporary.unlink()
    return counts


def write_scenarios(folder: BuildFolder, split: str, dropped: dict[int, str]) -> int:
    """`scenarios/<split>.jsonl` beside its videos' relative paths; returns how many."""
    target = folder.path / "scenarios"
    target.mkdir(exist_ok=True)
    temporary = target / f".{split}.{os.getpid()}.tmp"
    count = 0
    with temporary.open("w", encoding="utf-8") as file:
        for line in _kept_lines(folder, split, "scenarios.jsonl", dropped):
            file.write(line)
            count += 1
    if count:
        os.replace(temporary, target / f"{split}.jsonl")
    else:
        temporary.unlink()
    return count


def write_shards(
    folder: BuildFolder, config: BuildConfig, counts: dict[str, int], workers: int, progress: Callable[[str, int, int], None]
) -> dict[str, Any]:
    """Shards of every annotation file, through the steps of `moss data prepare`; what is there already stays.

    Raises:
        InputError: as `prepare`.
    """
    from data_pipeline.shards.partial import partial_folder
    from data_pipeline.shards.plan import PrepareOptions
    from data_pipeline.shards.prepare import prepare

    options = PrepareOptions(samples_per_shard=config.outputs.samples_per_shard, require_license=config.gates.require_license)
    summaries = {}
    for stem in counts:
        target = folder.path / "shards" / stem
        if (target / "summary.json").is_file():
            shutil.rmtree(partial_folder(target), ignore_errors=True)  # of a build that was killed while it tidied up
            summaries[stem] = json.loads((target / "summary.json").read_text(encoding="utf-8"))
            continue
        target.parent.mkdir(exist_ok=True)
        source = folder.path / "samples" / f"{stem}.jsonl"
        advance = lambda done, total, stem=stem: progress(f"shards/{stem}", done, total)  # noqa: E731
        summaries[stem] = prepare(source, target, options, workers=workers, on_lines=advance)
    return {stem: {"samples": s["samples"], "shards": len(s["shards"])} for stem, s in summaries.items()}


def store_dropped(folder: BuildFolder, dropped: Dropped) -> dict[str, Any]:
    """Write `dropped.json`; returns how many were left out for which reason, with the first rows of each."""
    reasons: dict[str, Any] = {}
    for split, rows in dropped.items():
        for number, reason in sorted(rows.items()):
            entry = reasons.setdefault(reason, {"count": 0, "examples": []})
            entry["count"] += 1
            if len(entry["examples"]) < EXAMPLES:
                entry["examples"].append(f"{split} row {number}")
    write_json(folder.path / "dropped.json", reasons)
    return reasons


def _drop_duplicates(folder: BuildFolder, threshold: float, dropped: Dropped) -> None:
    splits: list[tuple[str, int]] = []
    files: list[Path] = []
    for split in ORDER:
        parts = [part / SIGNATURES for part in folder.parts(split)]
        files += parts
        rows = sum(path.stat().st_size for path in parts) // (4 * 64)
        splits += [(split, number) for number in range(rows)]
    for row in near_duplicates(read_signatures(files), threshold):
        split, number = splits[row]
        dropped[split][number] = "nearly the same as another row"


def _left(folder: BuildFolder, split: str, dropped: dict[int, str]) -> Iterator[tuple[int, Pairs]]:
    """(number, answers) of the rows that are not left out yet."""
    number = 0
    for part in folder.parts(split):
        with (part / "rows.jsonl").open(encoding="utf-8") as file:
            for line in file:
                if number not in dropped:
                    yield number, [(kind, text) for kind, text in json.loads(line).get("quality", {}).get("answers", [])]
                number += 1


def _kept_lines(folder: BuildFolder, split: str, name: str, dropped: dict[int, str]) -> Iterator[str]:
    """Lines of all parts whose media paths count from a folder beside `parts`."""
    number = 0
    for part in folder.parts(split):
        left_out, identities = set(), _identities(part)
        for identity in identities:
            if number in dropped:
                left_out.add(identity)
            number += 1
        path = part / name
        if not path.is_file():
            continue
        prefix = os.path.join("..", "parts", split, part.name)
        with path.open(encoding="utf-8") as file:
            for line in file:
                values = json.loads(line)
                key = values.get("key") or values["id"]
                if key.removesuffix("-questions").removesuffix("-narration") in left_out:
                    continue
                yield json.dumps(_located(values, prefix, folder.path), ensure_ascii=False) + "\n"


def _identities(part: Path) -> list[str]:
    try:
        with (part / "rows.jsonl").open(encoding="utf-8") as file:
            return [json.loads(line)["id"] for line in file]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{part / 'rows.jsonl'} is damaged ({error}); remove {part} and run the same command again") from None


def _located(values: dict[str, Any], prefix: str, folder: Path) -> dict[str, Any]:
    """Media paths relative to `samples/` or `scenarios/`."""

    def moved(path: str) -> str:
        return os.path.relpath(path, folder / "samples") if os.path.isabs(path) else os.path.join(prefix, path)

    if "files" in values:
        values["files"] = {name: moved(path) for name, path in values["files"].items()}
    if "video" in values:
        values["video"] = moved(values["video"])
    return values
