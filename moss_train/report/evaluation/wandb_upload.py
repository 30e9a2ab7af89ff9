"""Evaluations in Weights & Biases: a table of items for each suite, metrics as the run's summary, the page and its numbers."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import InputError

JsonObject = dict[str, Any]
START_SECONDS = 60.0
"""How long the start waits for the server."""
DETAILS = ("question", "truth", "reply")
"""Details that get a column of their own; the others stand in one as JSON."""


Items = Mapping[str, Sequence[Any]]
"""Of each model by its name: items of `inference.evaluation.items`."""


@dataclass(frozen=True, kw_only=True)
class Upload:
    """Where it goes, and the files."""

    project: str
    entity: str | None
    name: str
    page: Path
    numbers: Path


def upload(what: Upload, content: JsonObject, items: Items, folder: Path) -> str:
    """Send all to W&B as one run of type `evaluation`; with WANDB_MODE=offline it is recorded below `folder`/wandb.

    Args:
        content: of the page.
        items: of each model by its name.

    Returns:
        The run's address, or offline the folder that `wandb sync` sends.

    Raises:
        InputError: nobody is logged in, or W&B refuses or cannot be reached.
    """
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    mode: Any = os.environ.get("WANDB_MODE", "online")
    try:
        if mode == "online" and not _logged_in(wandb):
            raise InputError(
                "nobody is logged in to W&B; run `wandb login`, set WANDB_API_KEY, or record with WANDB_MODE=offline "
                f"({what.page} is written)"
            )
        run = wandb.init(
            project=what.project,
            entity=what.entity,
            name=what.name,
            job_type="evaluation",
            dir=str(folder),
            mode=mode,
            config={"models": content["models"], "statistics": content["statistics"], "manifests": content["manifests"]},
            settings=wandb.Settings(console="off", init_timeout=START_SECONDS),
        )
        tables = {
            f"items/{suite}": wandb.Table(columns=columns, data=rows) for suite, (columns, rows) in tables_of(items).items()
        }
        run.log({**tables, "report": wandb.Html(what.page.read_text(encoding="utf-8"), inject=False)})
        run.summary.update(summary_of(content))
        artifact = wandb.Artifact(f"evaluation-{run.id}", type="evaluation")
        artifact.add_file(str(what.page))
        artifact.add_file(str(what.numbers))
        run.log_artifact(artifact)
        place = run.url or str(Path(run.dir).parent)
        run.finish()
    except InputError:
        raise
    except Exception as error:  # the client raises whatever its libraries do
        first = str(error).strip().partition("\n")[0]
        raise InputError(
            f"W&B did not take the evaluation ({type(error).__name__}: {first}); {what.page} is written; "
            "log in with `wandb login`, check --wandb and --wandb-entity, or record with WANDB_MODE=offline"
        ) from None
    return str(place)


def _logged_in(wandb: Any) -> bool:
    """Whether there is a key; nobody is asked for one."""
    try:
        return bool(wandb.login(prompt=False))
    except TypeError:  # older clients
        return bool(wandb.api.api_key)


def summary_of(content: JsonObject) -> dict[str, float]:
    """`SUITE/METRIC/MODEL`, and the same with `.low` and `.high` behind; metrics that have no value are left out."""
    found = {}
    for suite in content["suites"]:
        for model, own in suite["models"].items():
            for metric, one in own["metrics"].items():
                for end, key in (("", "estimate"), (".low", "low"), (".high", "high")):
                    if one[key] is not None:
                        found[f"{suite['name']}/{metric}/{model}{end}"] = one[key]
    return found


def tables_of(items: Items) -> dict[str, tuple[list[str], list[list[Any]]]]:
    """Columns and rows by suite: the model, what the item is called, its texts, and a column for each of its values."""
    suites = list(dict.fromkeys(item.suite for own in items.values() for item in own))
    found = {}
    for suite in suites:
        rows = [(model, item) for model, own in items.items() for item in own if item.suite == suite]
        values = list(dict.fromkeys(name for _, item in rows for name in item.values))
        columns = ["model", "scenario", "item", "task", "mode", *DETAILS, "details", *values]
        found[suite] = (columns, [_row(model, item, values) for model, item in rows])
    return found


def _row(model: str, item: Any, values: Sequence[str]) -> list[Any]:
    texts = [str(item.details.get(name, "")) for name in DETAILS]
    rest = {name: value for name, value in item.details.items() if name not in DETAILS}
    named = [model, item.scenario_id, item.item, item.task, item.mode]
    return [*named, *texts, json.dumps(rest, ensure_ascii=False, default=str), *(item.values.get(name) for name in values)]
