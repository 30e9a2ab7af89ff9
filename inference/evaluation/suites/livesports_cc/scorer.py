"""Whose commentary is nearer to the human one: the stream's, or that of the model to be compared with."""

from __future__ import annotations

from collections.abc import Sequence

from inference.evaluation.items import Item, Metrics
from inference.evaluation.judge.both_orders import both_orders
from inference.evaluation.judge.judge import Judge, JudgeRequest
from inference.evaluation.schema import Trace
from inference.evaluation.scorers.utterances import read_speech
from inference.evaluation.suites.livesports_cc.prompts import JUDGE
from inference.evaluation.suites.suite import Pairs

NAME = "livesports_cc"


def score(pairs: Pairs, judge: Judge | None) -> list[Item]:
    """One item for each streamed event; without a judge there is none. Who said nothing has lost without being judged."""
    if judge is None:
        return []
    events = [(scenario, _said(trace)) for trace, scenario in pairs if trace.mode == "push" and "other" in scenario.meta]
    requests: list[JudgeRequest[float]] = []
    for scenario, said in events:
        if said:
            truth = scenario.spans[0].text

            def build(a: str, b: str, truth: str = truth) -> list[dict[str, str]]:
                return [{"role": "user", "content": JUDGE.format(a=a, b=b, truth=truth)}]

            requests += both_orders(build, said, str(scenario.meta["other"]), f"scenario {scenario.id}")
    verdicts = iter(judge.ask(requests))
    found = []
    for scenario, said in events:
        both = [next(verdicts), next(verdicts)] if said else [0.0, 0.0]
        values = {
            "asked": 1.0,
            "official": sum(share == 1.0 for share in both) / 2,
            "win": sum(both) / 2,
            "agree": float(both[0] == both[1]),
            "spoke": float(bool(said)),
        }
        details = {"truth": scenario.spans[0].text, "reply": said, "other": scenario.meta["other"], "verdicts": both}
        details |= {"other_name": scenario.meta.get("other_name", ""), "cluster": scenario.video or scenario.id}
        found.append(
            Item(
                suite=NAME, scenario_id=scenario.id, item="stream", task="commentary", mode="push", values=values, details=details
            )
        )
    return found


def _said(trace: Trace) -> str:
    return " ".join(filter(None, (one.text.strip() for one in read_speech(trace).utterances)))


def aggregate(items: Sequence[Item]) -> Metrics:
    """Means over events; see the package."""
    if not items:
        return {}
    names = {"win_rate_official": "official", "win_rate": "win", "orders_agree": "agree", "spoke": "spoke"}
    count = sum(item.values["asked"] for item in items)
    return {metric: sum(item.values[name] for item in items) / count for metric, name in names.items()}
