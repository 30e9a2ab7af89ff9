"""`moss wandb dashboard`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="a run folder, which has recorded what is charted")
    parser.add_argument("--project", help="default: logging.wandb_project of the run")
    parser.add_argument("--entity", help="user or team; default: logging.wandb_entity of the run, else that of the account")
    parser.add_argument("--name", help="of the workspace; default: the run folder's")
    parser.add_argument("--dry-run", action="store_true", help="print the workspace as JSON and send nothing")


def run(args: argparse.Namespace) -> int:
    """Print the workspace, or save it and print its address."""
    from moss_train.report.workspace import save_workspace, workspace_of

    workspace = workspace_of(args.run_folder, project=args.project, entity=args.entity, name=args.name)
    if args.dry_run:
        print(json.dumps(workspace, indent=1))
    else:
        print(save_workspace(workspace))
    return 0
