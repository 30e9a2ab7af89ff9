"""Tables of scores: models side by side, by behaviour, and what each ablation costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model.errors import InputError

JsonObject = dict[str, Any]
Rows = list[tuple[str, list[str]]]

NONE = "–"

SCORE_ROWS = (
    ("answers: colour right", ("qa", "colour")),
    ("answers: kind right", ("qa", "kind")),
    ("answers: direction right", ("qa", "direction")),
    ("answers: all right", ("qa", "all")),
    ("speak precision, exact frame", ("speak", "precision")),
    ("speak recall, exact frame", ("speak", "recall")),
    ("speak F1, exact frame", ("speak", "f1")),
    ("silence precision", ("silence", "precision")),
    ("silence recall", ("silence", "recall")),
    ("silence F1", ("silence", "f1")),
    ("balanced accuracy of speaking and silence", ("speak", "balanced_accuracy")),
    ("onset error, median seconds", ("speak", "onset_error_median")),
    ("onset error, median frames", ("speak", "onset_error_median_frames")),
    ("false speaks a minute", ("speak", "false_per_minute")),
    ("right words where it spoke in time", ("speak", "sentence_accuracy")),
    ("corrections made in time", ("correction", "in_time")),
    ("corrections in time with the right words", ("correction", "in_time_right_words")),
    ("answers that had to wait, given in time", ("waiting", "in_time")),
    ("the same with the right words", ("waiting", "in_time_right_words")),
    ("guesses before the evidence, a clip with such an answer", ("waiting", "early_per_scenario")),
)
"""Label and path inside one model's scores."""

COST_COLUMNS = (
    ("speak F1", ("speak", "f1")),
    ("balanced accuracy", ("speak", "balanced_accuracy")),
    ("false speaks a minute", ("speak", "false_per_minute")),
    ("right words", ("speak", "sentence_accuracy")),
    ("corrections in time", ("correction", "in_time")),
    ("waiting answers in time", ("waiting", "in_time")),
    ("early guesses a clip", ("waiting", "early_per_scenario")),
    ("answers right", ("qa", "all")),
)
"""What an ablation is judged by."""


def value_at(scores: JsonObject, path: tuple[str, ...]) -> float | None:
    """The number at a path; None where there is none."""
    value: Any = scores
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return float(value) if isinstance(value, (int, float)) else None


def cell(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"


def score_rows(scores: Mapping[str, JsonObject]) -> Rows:
    """A row for each score that any model has, a cell for each model."""
    rows = [(label, [value_at(found, path) for found in scores.values()]) for label, path in SCORE_ROWS]
    return [(label, [cell(value) for value in values]) for label, values in rows if any(v is not None for v in values)]


def behaviour_rows(scores: Mapping[str, JsonObject]) -> Rows:
    """A row for each behaviour of the clips: how many clips and utterances due there are, the main model's false speaks a minute,
    then each model's speak F1, which says nothing where nothing is due."""
    main: JsonObject = next(iter(scores.values()), {}).get("by_behaviour", {})
    rows = []
    for name, found in main.items():
        counts = [str(found.get("scenarios", NONE)), str(found.get("spans", NONE)), cell(value_at(found, ("false_per_minute",)))]
        f1 = [cell(value_at(one, ("by_behaviour", name, "f1"))) if found.get("spans") else NONE for one in scores.values()]
        rows.append((name, counts + f1))
    return rows


def kind_rows(scores: Mapping[str, JsonObject]) -> Rows:
    """A row for each kind of utterance that was due: how many there were, then what share each model gave in time."""
    main: JsonObject = next(iter(scores.values()), {}).get("by_kind", {})
    rows = []
    for name, found in main.items():
        shares = [cell(value_at(one, ("by_kind", name, "in_time"))) for one in scores.values()]
        rows.append((name, [str(found.get("spans", NONE)), *shares]))
    return rows


def cost_rows(scores: Mapping[str, JsonObject], ablations: Mapping[str, str]) -> Rows:
    """The main model's figures, and of each ablation its own with the difference from them.

    Args:
        scores: by model; the first is the main one.
        ablations: model by label.

    Raises:
        InputError: an ablation names a model without scores.
    """
    if not ablations:
        return []
    main_name, main = next(iter(scores.items()))
    rows: Rows = [(main_name, [cell(value_at(main, path)) for _, path in COST_COLUMNS])]
    for label, name in ablations.items():
        if name not in scores:
            raise InputError(f"--ablation {label}={name} names no evaluation; use one of {', '.join(scores)}")
        cells = []
        for _, path in COST_COLUMNS:
            value, before = value_at(scores[name], path), value_at(main, path)
            change = "" if value is None or before is None else f" ({value - before:+.3f})"
            cells.append(cell(value) + change)
        rows.append((label, cells))
    return rows
