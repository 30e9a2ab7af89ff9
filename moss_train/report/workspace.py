"""A W&B workspace for a run's metrics: the charts of the run's report, as W&B draws them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from model.errors import InputError
from moss_train.monitors.panels import sections_for
from moss_train.monitors.wandb_file import read_history, wandb_files
from moss_train.report.run_data import read_run

JsonObject = dict[str, Any]
WIDTH, HEIGHT, COLUMNS = 8, 6, 3
"""Of a panel in W&B's grid of 24 columns, and panels in a row."""


def recorded_names(run_folder: Path) -> set[str]:
    """Metric names that W&B has of a run, from the files of its processes; of a run without W&B those that it would have.

    Raises:
        InputError: the folder holds no run that has done a step.
    """
    rows = [row for path in wandb_files(run_folder / "wandb") for row in read_history(path)[1]]
    if rows:
        return {name for row in rows for name in row if not name.startswith("_") and name != "step"}
    return set(read_run(run_folder).curves)


def workspace_of(
    run_folder: Path, *, project: str | None = None, entity: str | None = None, name: str | None = None
) -> JsonObject:  # fmt: skip
    """Plain values: where the workspace goes, and its sections with their panels; every metric of a panel is recorded.

    Raises:
        InputError: the folder holds no run that has done a step.
    """
    names = recorded_names(run_folder)
    config = run_folder / "config.yaml"
    logging = (yaml.safe_load(config.read_text(encoding="utf-8")) or {}).get("logging", {}) if config.is_file() else {}
    sections = [
        {
            "title": section.title,
            "panels": [
                {
                    "title": panel.title,
                    "metrics": panel.pick(names),
                    "x": "step",
                    "unit": panel.unit,
                    "log": panel.log,
                    "stacked": panel.stacked,
                }
                for panel in section.panels
            ],
        }
        for section in sections_for(names)
    ]
    return {
        "entity": entity or logging.get("wandb_entity"),
        "project": project or logging.get("wandb_project", "moss-train"),
        "name": name or run_folder.resolve().name,
        "sections": sections,
    }


def build_workspace(workspace: JsonObject, entity: str) -> Any:
    """The same as an object of the package wandb-workspaces; nothing is sent.

    Raises:
        InputError: the package is not installed.
    """
    try:
        import wandb_workspaces.reports.v2 as reports
        import wandb_workspaces.workspaces as workspaces
    except ImportError:
        raise InputError("the package wandb-workspaces is not installed; `pip install 'moss-train[wandb]'` brings it") from None
    sections = []
    for section in workspace["sections"]:
        panels = [
            reports.LinePlot(
                title=panel["title"],
                x=panel["x"],
                y=panel["metrics"],
                title_y=panel["unit"] or None,
                log_y=panel["log"] or None,
                plot_type="stacked-area" if panel["stacked"] else "line",
                layout=reports.Layout(x=WIDTH * (place % COLUMNS), y=HEIGHT * (place // COLUMNS), w=WIDTH, h=HEIGHT),
            )
            for place, panel in enumerate(section["panels"])
        ]
        sections.append(workspaces.Section(name=section["title"], panels=panels, is_open=True))
    return workspaces.Workspace(entity=entity, project=workspace["project"], name=workspace["name"], sections=sections)


def save_workspace(workspace: JsonObject) -> str:
    """Make it on the server; returns its address.

    Raises:
        InputError: W&B refuses or cannot be reached.
    """
    try:
        import wandb

        entity = workspace["entity"] or wandb.Api(timeout=20).default_entity
        built = build_workspace(workspace, entity)
        built.save()
        return str(built.url)
    except InputError:
        raise
    except Exception as error:  # the client raises whatever its libraries do
        first = str(error).strip().partition("\n")[0]
        raise InputError(
            f"W&B did not take the workspace ({type(error).__name__}: {first}); log in with `wandb login`, check --entity and "
            "--project, or look at it with --dry-run"
        ) from None
