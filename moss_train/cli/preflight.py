"""`moss preflight`: check this machine, or together with the same command on the others all nodes of a run."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moss_train.config.schema import RunConfig
    from moss_train.preflight.place import Place

_ANY_STAGE = "stage=pt1"
"""Where none is chosen: nothing of it is checked."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from moss_train.config.arguments import add_config_arguments

    parser.add_argument(
        "--nodes", type=int, metavar="N", help="nodes that run this (default: NNODES, those of the Slurm step, or 1)"
    )
    parser.add_argument("--node-rank", type=int, metavar="K", help="number of this node (default: NODE_RANK, SLURM_NODEID, or 0)")
    parser.add_argument(
        "--master",
        metavar="HOST:PORT",
        help="where node 0 is reached (default: MASTER_ADDR and MASTER_PORT, or Slurm's first node)",
    )
    parser.add_argument("--out", metavar="FOLDER", help="folder of report.json (default: RUN/launch/preflight)")
    add_config_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Check the nodes; see docs/preflight.md."""
    from moss_train.config.arguments import config_from_args, print_config
    from moss_train.launching.folder import job_dir
    from moss_train.preflight.place import find_place

    chosen = args.config is not None or any(word.startswith(("stage=", "demo=")) for word in args.overrides)
    if not chosen:
        args.overrides.append(_ANY_STAGE)
    config = config_from_args(args)
    if args.print_config:
        print_config(config)
        return 0
    place = find_place(args.nodes, args.node_rank, args.master, config.launcher.master_port)
    named = chosen or any(word.startswith("run_dir=") for word in args.overrides)
    run_dir = Path(config.run_dir if named else "runs")
    out = Path(args.out) if args.out else job_dir(run_dir) / "preflight" if named else run_dir / "preflight"
    if place.nodes > 1:
        return _check(config, chosen, run_dir, out, place, place.port)
    from moss_train.parallel.ports import hold_port

    with hold_port() as port:
        return _check(config, chosen, run_dir, out, place, port)


def _check(config: RunConfig, chosen: bool, run_dir: Path, out: Path, place: Place, port: int) -> int:
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # before torch is loaded: a lost connection is told in a sentence
    from moss_train.preflight.node import Request, check_node

    launcher = config.launcher
    processes = None if launcher.kind == "local" and launcher.nproc_per_node == 1 else launcher.nproc_per_node
    request = Request(config=config, out=out, run_dir=run_dir, data=chosen, processes=processes)
    return check_node(place, request, port)
