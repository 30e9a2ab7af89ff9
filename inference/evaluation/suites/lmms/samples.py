"""Reads what lmms-eval logs of each document: `DATE_samples_TASK.jsonl`, one object a line.

Beside `doc_id`, `target`, `filtered_resps` and the like a line holds one field for each of the task's metrics: a number, or
what the task's aggregation reads, often an object with a score or with a prediction and an answer.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inference.evaluation.items import Item
from model.errors import InputError

NAME = "lmms"
_FILE = re.compile(r"(?:(?P<date>.*?)_)?samples_(?P<task>.+)\.jsonl")
_OWN = {
    "doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "token_counts", "input", "input_media", "doc_hash",
    "prompt_hash", "target_hash", "filter", "metrics", "schema_version", "generation_config",
}  # fmt: skip
"""Fields that are no metrics."""
_SCORES = ("score", "scores", "accuracy", "acc", "correct", "is_correct", "hit")
_PREDICTIONS = ("pred_answer", "parsed_pred", "prediction", "pred")
_ANSWERS = ("answer", "ground_truth", "gt_answer", "gt", "target")
_VIDEOS = ("video_id", "videoID", "video_name", "video", "video_path")


def sample_files(folder: Path) -> dict[str, Path]:
    """The newest log of each task in a folder or below it."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*samples_*.jsonl"), key=lambda one: one.name) if folder.is_dir() else []:
        match = _FILE.fullmatch(path.name)
        if match is not None:
            found[match["task"]] = path  # names begin with the date
    return found


def read_samples(folder: Path) -> tuple[list[Item], dict[str, str], list[str]]:
    """Items of all tasks, fingerprints of their documents, and what could not be read, one sentence for each task.

    Raises:
        InputError: a line is no sample; it is named.
    """
    items: list[Item] = []
    fingerprints: dict[str, str] = {}
    notes = []
    for task, path in sorted(sample_files(folder).items()):
        unread: set[str] = set()
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
            if not line.strip():
                continue
            try:
                sample = json.loads(line)
                document = f"{task}/{sample['doc_id']}"
            except (ValueError, TypeError, KeyError) as error:
                raise InputError(f"{path} line {number} is no sample of lmms-eval ({error!r}); run the task again") from None
            item = _item(task, document, sample, unread)
            content = json.dumps([sample.get("target"), sample.get("doc_hash")], sort_keys=True, default=str)
            fingerprints[document] = hashlib.sha256(content.encode()).hexdigest()
            if item.values:
                items.append(item)
        if unread:
            notes.append(
                f"{task}: {', '.join(sorted(unread))} of {path.name} hold no score of single documents and are left out."
            )
    return items, fingerprints, notes


def _item(task: str, document: str, sample: Mapping[str, Any], unread: set[str]) -> Item:
    values, cluster = {}, ""
    for name, content in sample.items():
        if name in _OWN:
            continue
        value = score_of(content)
        if value is None:
            unread.add(name)
        else:
            values[name] = value
        if isinstance(content, Mapping):
            cluster = next((str(content[key]) for key in _VIDEOS if content.get(key)), cluster)
    details = {"truth": str(sample.get("target", "")), "reply": str(sample.get("filtered_resps", ""))}
    if cluster:
        details["cluster"] = f"{task}/{cluster}"
    return Item(suite=NAME, scenario_id=document, item="answer", task=task, mode="offline", values=values, details=details)


def score_of(content: Any) -> float | None:
    """The score in a metric's field: a number, that of an object, or 1 or 0 whether its prediction is its answer; else None."""
    if isinstance(content, (bool, int, float)):
        return float(content) if math.isfinite(content) else None
    if isinstance(content, list) and len(content) == 1:
        return score_of(content[0])
    if not isinstance(content, Mapping):
        return None
    for name in _SCORES:
        if isinstance(content.get(name), (bool, int, float)):
            return score_of(content[name])
    said = next((content[name] for name in _PREDICTIONS if name in content), None)
    true = next((content[name] for name in _ANSWERS if name in content), None)
    if said is None or true is None:
        return None
    return float(str(said).strip().lower() == str(true).strip().lower())
