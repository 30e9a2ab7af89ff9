"""What the first node does besides its own part: gathers, judges, has all-reduces tried, reports."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any

from moss_train.preflight.clock import judge_clocks, serve_clock
from moss_train.preflight.compare import judge_facts
from moss_train.preflight.data_folders import judge_data
from moss_train.preflight.exchange import NoAnswerError
from moss_train.preflight.findings import BAD, OK, Finding, Verdict
from moss_train.preflight.folders import SharedToken, judge_sharing
from moss_train.preflight.gpus import judge_products
from moss_train.preflight.network import judge_ports
from moss_train.preflight.node import SECONDS_TO_SEE, Node
from moss_train.preflight.report import EXIT_BAD_NODE, clear_report, print_report, write_report
from moss_train.preflight.trials import Trials, judge_allreduce

CLOCK_SECONDS = 30.0
"""For the clocks of all nodes, at most."""


class FirstNode:
    """Node 0 of the check."""

    def __init__(self, node: Node) -> None:
        self._node, self._exchange = node, node.exchange
        self._seconds = node.request.seconds
        self._began = time.time()
        self._token = uuid.uuid4().hex[:12]
        self._answers: dict[int, dict[str, Any]] = {}

    def run(self) -> int:
        """The whole check.

        Returns:
            0, or `EXIT_BAD_NODE`, which the other nodes end with as well.
        """
        request = self._node.request
        clear_report(request.out)
        verdict = self._meet()
        present = [node for node in verdict.findings if verdict.level(node, "answer") == OK]
        shared = SharedToken(request.run_dir, self._token)
        shared.write(0)
        self._exchange.put("roster", {"nodes": present, "token": self._token})
        fallen = self._serve_clocks([node for node in present if node != 0])
        self._gather(verdict, present, fallen)
        self._judge(verdict, shared)
        trials = Trials(self._node, {n: a["ranks"] for n, a in self._answers.items() if a["ranks"]}, verdict)
        judge_allreduce(trials, verdict, request.config.launcher.preflight)
        shared.clear(0)
        verdict.find_common()
        code = EXIT_BAD_NODE if verdict.bad or verdict.faults else 0
        facts = {node: answer["facts"] for node, answer in self._answers.items()}
        write_report(request.out, verdict, facts, trials.gbytes, began=self._began, code=code)
        print_report(verdict, request.out)
        self._end(trials, code)
        return code

    def _meet(self) -> Verdict:
        """Wait for all nodes; the verdict knows their names and who did not come."""
        place, end = self._node.place, time.monotonic() + self._seconds
        names: dict[int, str | None] = {0: place.name}
        for node in range(1, place.nodes):
            try:
                names[node] = self._exchange.get(f"here/{node}", max(0.0, end - time.monotonic()))
            except NoAnswerError:
                names[node] = None
        given = [name for name in names.values() if name is not None]
        shown = [
            place.expected_name(node) if name is None else f"{name} (rank {node})" if given.count(name) > 1 else name
            for node, name in names.items()
        ]
        verdict = Verdict(shown)
        for node, name in names.items():
            if name is None:
                verdict.add(node, self._silent("did not start the check"))
            else:
                verdict.add(node, Finding("answer", OK, "answered"))
        return verdict

    def _silent(self, what: str) -> Finding:
        why = (
            f"{what} within {self._seconds:g} s (launcher.preflight.timeout_seconds); look whether it is up, and reaches "
            f"{self._node.place.host}, or leave it out"
        )
        return Finding("answer", BAD, "no answer", why)

    def _serve_clocks(self, nodes: Sequence[int]) -> set[int]:
        """Tell each node the time; returns those that did not ask although there was time to."""
        end, fallen = time.monotonic() + min(CLOCK_SECONDS, self._seconds), set()
        for node in nodes:
            left = end - time.monotonic()
            try:
                serve_clock(self._exchange, node, self._node.request.clock, max(1.0, left))
            except NoAnswerError:
                fallen |= {node} if left > 1.0 else set()
        return fallen

    def _gather(self, verdict: Verdict, present: Sequence[int], fallen: set[int]) -> None:
        """Everybody's answer; for the fallen nobody waits."""
        self._answers[0] = self._node.answer(self._token, {"seconds": 0.0, "within": 0.0})
        end = time.monotonic() + self._seconds
        for node in present:
            left = 0.0 if node in fallen else max(0.0, end - time.monotonic())
            try:
                answer = self._answers[0] if node == 0 else self._exchange.get(f"answer/{node}", left)
            except NoAnswerError:
                verdict.add(node, self._silent("started the check and then gave no answer"))
                continue
            self._answers[node] = answer
            verdict.add(node, *(Finding.of(finding) for finding in answer["findings"]))

    def _judge(self, verdict: Verdict, shared: SharedToken) -> None:
        answers, request = self._answers, self._node.request
        judge_facts(verdict, {node: answer["facts"] for node, answer in answers.items()})
        judge_clocks(
            verdict,
            {node: answer["skew"] for node, answer in answers.items()},
            request.config.launcher.preflight.max_clock_skew_seconds,
        )
        judge_ports(verdict, {node: answer["ports"] for node, answer in answers.items()})
        judge_data(verdict, {node: answer["data"] for node, answer in answers.items()})
        judge_products(verdict, {node: answer["products"] for node, answer in answers.items()})
        wrote = [node for node, answer in answers.items() if node != 0 and answer["wrote"]]  # of the others it is told already
        seconds = min(SECONDS_TO_SEE, self._seconds / 6)
        seen = {node: answers[node]["sees"] and shared.see(node, seconds) for node in wrote}
        if verdict.level(0, "folders") != BAD:
            sees = {node: bool(answers[node]["sees"]) for node in wrote}
            judge_sharing(verdict, request.run_dir, sees, seen, {node: a["mount"] for node, a in answers.items()})

    def _end(self, trials: Trials, code: int) -> None:
        """Tell all, and keep the store until they have heard it."""
        self._exchange.put(f"plan/{trials.count}", {"end": code})
        end = time.monotonic() + 10.0
        for node in self._answers:
            if node != 0 and node not in trials.silent:
                try:
                    self._exchange.get(f"left/{node}", max(0.0, end - time.monotonic()))
                except NoAnswerError:
                    continue
