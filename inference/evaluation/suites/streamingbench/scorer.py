"""Answers to questions with options, and the moments of the proactive task, official and strict side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from inference.evaluation.items import Item, Metrics
from inference.evaluation.judge.judge import Judge
from inference.evaluation.schema import Poll, PollRound, Scenario, Trace
from inference.evaluation.scorers.questions import normalise
from inference.evaluation.scorers.utterances import read_speech
from inference.evaluation.suites.parsing import strict_choice, strict_yes_no
from inference.evaluation.suites.streamingbench.tasks import GROUPS, PROACTIVE
from inference.evaluation.suites.suite import Pairs

NAME = "streamingbench"
TOLERANCE = 2.0
"""Seconds between the true moment and the one taken, at the most."""

_ANSWERS = {"answer_accuracy_official": "answer_official", "answer_accuracy_strict": "answer_strict"}
_METRICS = {
    "choice": {"accuracy_official": "official", "accuracy_strict": "strict"},
    f"{PROACTIVE}.poll": {"time_accuracy_official": "time_official", "time_accuracy_strict": "time_strict", **_ANSWERS},
    f"{PROACTIVE}.push": {"time_accuracy": "time", "spoke": "spoke", **_ANSWERS},
}
"""Shares of what was asked, and the values of items that they are made of."""


def score(pairs: Pairs, judge: Judge | None) -> list[Item]:
    """One item for each question with options, each poll and each streamed proactive question."""
    found: list[Item] = []
    for trace, scenario in pairs:
        if trace.mode == "offline":
            found += _choices(trace, scenario)
        elif trace.mode == "poll":
            found += [_poll(scenario, scenario.polls[one.poll], one) for one in trace.polls]
            # What was not asked because the run ended early is wrong, not absent.
            asked = {one.poll for one in trace.polls}
            found += [_poll(scenario, poll, PollRound(poll=i)) for i, poll in enumerate(scenario.polls) if i not in asked]
        elif trace.mode == "push":
            found += [_push(trace, scenario, poll) for poll in scenario.polls]
    return found


def official_choice(reply: str, answer: str) -> bool:
    """The first character is the letter (the code's `count.py`)."""
    return reply[:1] == answer


def _choices(trace: Trace, scenario: Scenario) -> Iterator[Item]:
    for number, (question, reply) in enumerate(zip(scenario.questions, trace.answers, strict=True)):
        chosen = strict_choice(reply, question.choices)
        yield _item(
            scenario,
            f"q{number}",
            question.kind,
            "offline",
            {
                "asked": 1.0,
                "official": float(official_choice(reply, question.answer)),
                "strict": float(chosen == question.answer),
            },
            {
                "question": question.meta.get("question", question.text),
                "truth": question.answer,
                "reply": reply,
                "chosen": chosen,
            },
        )


def _poll(scenario: Scenario, poll: Poll, asked: PollRound) -> Item:
    due, output = float(poll.meta["due"]), str(poll.meta["output"])
    values = {"asked": 1.0}
    details: dict[str, Any] = {"question": poll.text, "truth": output, "due": due, "reply": asked.final}
    for parser in ("official", "strict"):
        place = next((i for i, one in enumerate(asked.replies) if _says_yes(one.text, parser)), None)
        moment = None if place is None else asked.replies[place].t
        # The reply to `then` belongs to the moment at which asking ended.
        final = asked.final if place is not None and asked.stopped and place == len(asked.replies) - 1 else ""
        in_time = moment is not None and abs(moment - due) <= TOLERANCE
        values[f"time_{parser}"] = float(in_time)
        values[f"answer_{parser}"] = float(in_time and _holds(final, output, parser))
        details[f"moment_{parser}"] = moment
    return _item(scenario, f"poll{asked.poll}", PROACTIVE, "poll", values, details)


def _push(trace: Trace, scenario: Scenario, poll: Poll) -> Item:
    due, output = float(poll.meta["due"]), str(poll.meta["output"])
    asked_at = scenario.prompts[poll.prompt or 0].t
    first = next((one for one in read_speech(trace).utterances if one.t >= asked_at), None)
    in_time = first is not None and abs(first.t - due) <= TOLERANCE
    text = "" if first is None else first.text
    values = {"asked": 1.0, "spoke": float(first is not None), "time": float(in_time)}
    if first is not None:
        values["onset_error"] = abs(first.t - due)
    for parser in ("official", "strict"):
        values[f"answer_{parser}"] = float(in_time and _holds(text, output, parser))
    details = {"question": scenario.prompts[poll.prompt or 0].text, "truth": output, "due": due, "reply": text}
    return _item(scenario, "stream", PROACTIVE, "push", values, details | {"moment": None if first is None else first.t})


def _says_yes(reply: str, parser: str) -> bool:
    """Official: "yes" anywhere in any case. Strict: the first word."""
    return "yes" in reply.lower() if parser == "official" else strict_yes_no(reply) is True


def _holds(reply: str, output: str, parser: str) -> bool:
    """Official: the text occurs. Strict: it does so as whole words, case and punctuation apart: 13 does not say 3."""
    if parser == "official":
        return output in reply
    wanted = normalise(output)
    return f" {wanted} " in f" {normalise(reply)} " if wanted else output in reply


def _item(scenario: Scenario, name: str, task: str, mode: str, values: dict[str, float], details: dict[str, Any]) -> Item:
    details = {**details, "cluster": scenario.video or scenario.id}
    return Item(suite=NAME, scenario_id=scenario.id, item=name, task=task, mode=mode, values=values, details=details)


def aggregate(items: Sequence[Item]) -> Metrics:
    """Shares by task, group and over all; see the package."""
    sums: dict[str, dict[str, float]] = {}
    for item in items:
        key = item.task if item.mode == "offline" else f"{item.task}.{item.mode}"
        total = sums.setdefault(key, {})
        for name, value in item.values.items():
            total[name] = total.get(name, 0.0) + value
    metrics: Metrics = {}
    for key, total in sums.items():
        for metric, made_of in _METRICS.get(key, _METRICS["choice"]).items():
            metrics[f"{key}.{metric}"] = total.get(made_of, 0.0) / total["asked"]
        if key == f"{PROACTIVE}.push":
            metrics[f"{key}.onset_error"] = total["onset_error"] / total["spoke"] if total["spoke"] else None
    return metrics | _groups(sums)


def _groups(sums: dict[str, dict[str, float]]) -> Metrics:
    """All questions of a group alike; of the proactive task the moment counts, as it was polled."""
    metrics: Metrics = {}
    known = {task for tasks in GROUPS.values() for task in tasks}
    others = tuple(task for task in sums if task not in known and not task.startswith(PROACTIVE))
    for parser in ("official", "strict"):
        whole_right, whole_asked = 0.0, 0.0
        for group, tasks in {**GROUPS, "other": others}.items():
            right, asked = 0.0, 0.0
            for task in tasks:
                total = sums.get(f"{task}.poll" if task == PROACTIVE else task, {})
                right += total.get(f"time_{parser}" if task == PROACTIVE else parser, 0.0)
                asked += total.get("asked", 0.0)
            if asked:
                metrics[f"{group}.accuracy_{parser}"] = right / asked
            whole_right, whole_asked = whole_right + right, whole_asked + asked
        metrics[f"overall.accuracy_{parser}"] = whole_right / whole_asked if whole_asked else None
    return metrics
