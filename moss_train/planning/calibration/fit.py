"""Rates fitted to measured steps: few numbers, each with a meaning, from a part of the cases; the rest shows what they are worth.

Every rate is fitted from two cases, the first and the last in the file of those whose seconds depend on it, so that most
cases play no part. What is made small is the squared logarithm of predicted over measured seconds, of steps and of phases
by their share of the step, and beside it the distance from the rates as they were: where two rates cannot be told apart
they keep their ratio, and one that nothing depends on stays. Steps are Gauss and Newton's, damped, in the logarithms of the
rates, so rates stay above 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from moss_train.planning.calibration.compare import predicted_seconds
from moss_train.planning.calibration.results import Case
from moss_train.planning.flops import Gpu
from moss_train.planning.rates import NAMES, Rates, Row

Vector: TypeAlias = NDArray[np.float64]

SCATTER = 0.02
"""Of measured seconds."""
CHANGES = {"memory": 0.1, "tower_attention": 0.2}
"""How much a rate changes from one table to the next, as a share: a copy reaches 0.8 to 0.9 of any card's bandwidth."""
OTHERS_CHANGE = 0.5
DEPENDS = 0.05
"""A phase depends on a rate if a change of it by so much more changes the seconds by a share of this of that."""
NUDGE = 1e-5
MATTERS = 0.02
"""Share of a step from which a phase counts."""
LEAST = 1e-6
"""Seconds."""
ROUNDS = 40
ENOUGH = 1e-4
"""A step that makes the sum of squares less by a smaller share is the last."""
STARTS: tuple[dict[str, float], ...] = (
    {},
    {"host_layer": 0.25, "host_micro_batch": 0.25},
    {"host_layer": 0.25, "host_micro_batch": 0.25, "decoder": 1.3},
)
"""Factors on the rates as they were, from which the fit is tried: where the host limits, nothing else is seen."""


@dataclass(frozen=True)
class Fit:
    """What was fitted."""

    row: Row
    used: tuple[str, ...]
    """Names of the cases that the numbers come from."""


def fit(cases: Sequence[Case], gpu: Gpu, before: Row, source: str) -> Fit:
    """Fit a card's rates.

    Args:
        cases: measured on it.
        before: its rates so far.
        source: of the cases, in words.
    """
    used = chosen_cases(cases, gpu, before.rates)
    start = _logs(before.rates)
    pull = np.array([SCATTER / CHANGES.get(name, OTHERS_CHANGE) for name in NAMES])

    def residuals(logs: Vector) -> Vector:
        return np.concatenate([_residuals(case, gpu, _rates(logs)) for case in used] + [pull * (logs - start)])

    tries = [_least_squares(residuals, start + _logs_of(factors)) for factors in STARTS]
    best = min(tries, key=lambda logs: float(np.sum(residuals(logs) ** 2)))
    moved = np.sqrt(np.sum(_jacobian(residuals, best)[: -len(NAMES)] ** 2, axis=0))
    known = moved > pull
    final = np.where(known, best, start)
    names = tuple(name for name, is_known in zip(NAMES, known, strict=True) if is_known)
    return Fit(Row(_rates(final), True, source, names), tuple(case.name for case in used))


def chosen_cases(cases: Sequence[Case], gpu: Gpu, rates: Rates) -> list[Case]:
    """The cases to fit: of those that depend on a rate the first and the last, for every rate, in the file's order."""
    logs = _logs(rates)
    depends = []
    for case in cases:

        def seconds(at: Vector, case: Case = case) -> Vector:
            found = predicted_seconds(case, gpu, _row(_rates(at)))
            return np.log([max(found[phase], LEAST) for phase in _phases(case)])

        depends.append(np.max(np.abs(_jacobian(seconds, logs)), axis=0, initial=0.0) > DEPENDS)
    taken: set[int] = set()
    for column in np.array(depends).T:
        rows = np.flatnonzero(column)
        taken |= {int(row) for row in (*rows[:1], *rows[-1:])}
    return [cases[index] for index in sorted(taken)]


def _residuals(case: Case, gpu: Gpu, rates: Rates) -> Vector:
    """Logarithms of predicted over measured: of phases, each by the root of its share, and of all that are known together."""
    found, phases = predicted_seconds(case, gpu, _row(rates)), _phases(case)
    whole = sum(phases.values())
    each = [np.sqrt(measured / whole) * np.log(max(found[phase], LEAST) / measured) for phase, measured in phases.items()]
    return np.array([*each, np.log(max(sum(found[phase] for phase in phases), LEAST) / whole)])


def _phases(case: Case) -> dict[str, float]:
    """Measured seconds of the phases that matter: without frames encoding takes a moment, of which no rate can be had."""
    whole = sum(case.seconds.values())
    return {phase: seconds for phase, seconds in case.seconds.items() if seconds >= MATTERS * whole}


def _least_squares(residuals: Callable[[Vector], Vector], logs: Vector) -> Vector:
    """Levenberg and Marquardt's steps from `logs` [rates]."""
    damping, now = 1e-3, residuals(logs)
    for _ in range(ROUNDS):
        slope = _jacobian(residuals, logs)
        square = slope.T @ slope
        step = np.linalg.solve(square + damping * np.diag(np.diag(square)), -slope.T @ now)
        then = residuals(logs + step)
        gained = 1 - np.sum(then**2) / max(np.sum(now**2), 1e-30)
        if gained > 0:
            logs, now, damping = logs + step, then, max(damping / 10, 1e-9)
        else:
            damping *= 10
        if 0 < gained < ENOUGH or damping > 1e3:
            break
    return logs


def _jacobian(function: Callable[[Vector], Vector], logs: Vector) -> Vector:
    """[values, rates], by differences."""
    at, columns = function(logs), []
    for index in range(len(logs)):
        nudge = np.zeros_like(logs)
        nudge[index] = NUDGE
        columns.append((function(logs + nudge) - at) / NUDGE)
    return np.stack(columns, axis=1)


def _logs(rates: Rates) -> Vector:
    return np.log(np.array([getattr(rates, name) for name in NAMES], dtype=np.float64))


def _logs_of(factors: dict[str, float]) -> Vector:
    return np.log(np.array([factors.get(name, 1.0) for name in NAMES], dtype=np.float64))


def _rates(logs: Vector) -> Rates:
    return Rates(**{name: float(value) for name, value in zip(NAMES, np.exp(logs), strict=True)})


def _row(rates: Rates) -> Row:
    return Row(rates, True, "")
