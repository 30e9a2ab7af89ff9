"""E.T. Bench: options that were chosen, and spans that were found, official and strict."""

from __future__ import annotations

import re
from collections.abc import Sequence

from inference.evaluation.items import Item, Metrics
from inference.evaluation.judge.judge import Judge
from inference.evaluation.schema import Question, Scenario
from inference.evaluation.suites.etbench.captions import Caption, detection, likeness, official_captions, strict_captions
from inference.evaluation.suites.etbench.importer import CAPTIONING, CHOICES, GROUPS
from inference.evaluation.suites.etbench.similarity import Similarity, installed
from inference.evaluation.suites.etbench.spans import (
    THRESHOLDS,
    Span,
    detection_f1,
    official_spans,
    overlap,
    seconds_f1,
    strict_spans,
)
from inference.evaluation.suites.parsing import LETTERS, strict_choice
from inference.evaluation.suites.suite import Pairs

NAME = "etbench"
PARSERS = ("official", "letters", "strict")
"""letters: as official, but that a reply without a letter chooses no option; it stands where the sentence encoder is missing."""
_FIGURE = {"referring": "accuracy", "grounding": "f1", "captioning": "f1", "complex": "recall"}


def score(pairs: Pairs, judge: Judge | None) -> list[Item]:
    """One item for each question; texts are compared as this machine can (`similarity.installed`)."""
    return score_with(pairs, installed())


def score_with(pairs: Pairs, similarity: Similarity) -> list[Item]:
    """The same with a similarity of one's own."""
    found = []
    for trace, scenario in pairs:
        if trace.mode == "offline":
            for number, (question, reply) in enumerate(zip(scenario.questions, trace.answers, strict=True)):
                found.append(_item(scenario, number, question, reply, similarity))
    return found


def _item(scenario: Scenario, number: int, question: Question, reply: str, similarity: Similarity) -> Item:
    values = {"asked": 1.0}
    lenient = "letters" if question.kind in CHOICES and similarity.name != "official" else "official"
    for parser in (lenient, "strict"):
        if question.kind in CAPTIONING:
            found = _captions(question, reply, parser, similarity, f"{scenario.id} {number}")
        else:
            found = _values(question, reply, parser, similarity)
        values |= {f"{name}_{parser}": value for name, value in found.items()}
    source = str(question.meta["source"])
    details = {"question": question.text, "truth": question.answer, "reply": reply, "source": source}
    details["cluster"] = scenario.video or scenario.id
    return Item(
        suite=NAME,
        scenario_id=scenario.id,
        item=f"{source}.q{number}",
        task=question.kind,
        mode="offline",
        values=values,
        details=details,
    )


def _captions(question: Question, reply: str, parser: str, similarity: Similarity, name: str) -> dict[str, float]:
    """Precision and recall at each threshold, and the similarity of the captions."""
    said = official_captions(reply) if parser == "official" else strict_captions(reply)
    truth: list[Caption] = [
        ((begin, end), text) for (begin, end), text in zip(question.meta["truth"], question.meta["captions"], strict=True)
    ]
    values = {"read": float(bool(said))}
    for place, least in enumerate(THRESHOLDS):
        precision, recall = detection(said, [span for span, _ in truth], least)
        values |= {f"precision{place}": precision, f"recall{place}": recall}
    return values | {_LIKENESS[similarity.name]: likeness(said, truth, similarity, name)}


_LIKENESS = {"official": "similarity", "words": "word_similarity"}


def _values(question: Question, reply: str, parser: str, similarity: Similarity) -> dict[str, float]:
    """`figure`, the task's own, and whether the reply was `read`."""
    task, strict = question.kind, parser == "strict"
    if task in GROUPS["referring"]:
        letter = strict_choice(reply, question.choices) if strict else _chosen(reply, question, similarity)
        read = letter if strict else official_choice(reply, len(question.choices), task)
        return {"figure": float(letter == question.answer), "read": float(read is not None)}
    truth: list[Span] = [(begin, end) for begin, end in question.meta["truth"]]
    if task == "vhd":
        moment = _moment(reply, strict)
        hit = moment is not None and any(begin <= moment <= end for begin, end in truth)
        return {"figure": float(hit), "read": float(moment is not None)}
    found = strict_spans(reply) if strict else official_spans(reply)
    if not found:
        return {"figure": 0.0, "read": 0.0}
    if task == "tal":
        return {"figure": sum(detection_f1(found, truth, least) for least in THRESHOLDS) / len(THRESHOLDS), "read": 1.0}
    if task == "evs":
        return {"figure": seconds_f1(found, truth), "read": 1.0}
    if strict and len(found) > 1:  # which of them is meant?
        return {"figure": 0.0, "read": 0.0, "iou": 0.0}
    iou = max(overlap(found[0], one) for one in truth)
    if task == "gvq":
        letter = strict_choice(_before(reply), question.choices) if strict else _chosen(reply, question, similarity)
        right = float(letter == question.answer)
        return {"figure": right * _hits(iou), "read": 1.0, "right": right}
    return {"figure": _hits(iou), "read": 1.0, "iou": iou}


def _hits(iou: float) -> float:
    """Share of the thresholds that are reached."""
    return sum(iou >= least for least in THRESHOLDS) / len(THRESHOLDS)


def _before(reply: str) -> str:
    """What a reply says before its first number: the option, where a span follows."""
    return re.split(r"\d", reply, maxsplit=1)[0]


def _chosen(reply: str, question: Question, similarity: Similarity) -> str | None:
    """By its letter; where there is none and the official encoder is there, the option of the most similar wording."""
    letter = official_choice(reply, len(question.choices), question.kind)
    if letter is not None or similarity.name != "official" or not reply.lstrip().lstrip("(").strip():
        return letter
    low = reply.lower() if question.kind != "gvq" else reply
    said = (low[12:] if low.lower().startswith("best option:") else low).lstrip().lstrip("(").lstrip()
    options = [f"({LETTERS[place]}) {option}" for place, option in enumerate(question.choices)]
    alike = similarity.compare([(said, option) for option in options])
    return LETTERS[alike.index(max(alike))]


def official_choice(reply: str, count: int, task: str) -> str | None:
    """The letter that the official reader takes (`rvq_eval`, `gvq_eval` of compute_metrics.py), None where it finds none.

    The first letter in brackets (not for gvq); else the first character, behind "best option:" and an opening bracket, where it
    stands alone or before a point, comma, blank or closing bracket.
    """
    known = LETTERS[:count]
    bracket = re.search(r"\(([A-Za-z])\)", reply) if task != "gvq" else None
    if bracket and bracket[1].upper() in known:
        return bracket[1].upper()
    text = reply[12:] if reply.lower().startswith("best option:") else reply
    text = text.lstrip().lstrip("(").lstrip()
    if text and (len(text) == 1 or text[1] in ".,) ") and text[0].upper() in known:
        return text[0].upper()
    return None


def _moment(reply: str, strict: bool) -> float | None:
    """Seconds: official the first number, strict the only one."""
    numbers = re.findall(r"[-+]?\d*\.\d+|[-+]?\d+", reply)
    return float(numbers[0]) if numbers and (not strict or len(numbers) == 1) else None


def aggregate(items: Sequence[Item]) -> Metrics:
    """Means over samples of a source, over sources of a task, over tasks of a group; see the package."""
    sums: dict[tuple[str, str], dict[str, float]] = {}
    for item in items:
        # The source is in the name, so that sums of items have it too.
        total = sums.setdefault((item.task, item.item.rpartition(".")[0]), {})
        for name, value in item.values.items():
            total[name] = total.get(name, 0.0) + value
    metrics: Metrics = {}
    for parser in PARSERS:
        for group, tasks in GROUPS.items():
            figures: dict[str, list[float]] = {}
            for task in tasks:
                sources = [total for (name, _), total in sums.items() if name == task]
                if not sources or f"read_{parser}" not in sources[0]:
                    continue
                found = [_of_source(task, total, parser) for total in sources]
                for name in found[0]:
                    figures.setdefault(name, []).append(sum(one[name] for one in found) / len(found))
                    metrics[f"{task}.{name}_{parser}"] = figures[name][-1]
                asked = sum(total["asked"] for total in sources)
                metrics[f"{task}.read_{parser}"] = sum(total[f"read_{parser}"] for total in sources) / asked
            for name, values in figures.items():
                if len(values) == sum(any(task == asked for asked, _ in sums) for task in tasks):
                    metrics[f"{group}.{name}_{parser}"] = sum(values) / len(values)
    return metrics


def _of_source(task: str, total: dict[str, float], parser: str) -> dict[str, float]:
    """Figures of one source by name; official ones of evs and of similarities leave out what could not be read."""
    read = total["read_official"] if parser == "official" else total["asked"]
    if task in CAPTIONING:
        found = {"f1": 0.0}
        for place in range(len(THRESHOLDS)):
            precision, recall = (total[f"{name}{place}_{parser}"] / total["asked"] for name in ("precision", "recall"))
            if precision + recall > 0:
                found["f1"] += 2 * precision * recall / (precision + recall) / len(THRESHOLDS)
        alike = {name: total[f"{name}_{parser}"] for name in _LIKENESS.values() if f"{name}_{parser}" in total}
        return found | {name: value / read if read else 0.0 for name, value in alike.items()}
    group = next(name for name, tasks in GROUPS.items() if task in tasks)
    count = read if task == "evs" else total["asked"]
    return {_FIGURE[group]: total[f"figure_{parser}"] / count if count else 0.0}
