"""`moss demo`: the whole way from making data to a streaming model and its report, by public commands alone."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import InputError

EXAMPLE = "moss demo --out runs/demo"
PLAN = "commands"


@dataclass
class DemoStep:
    """One public command of the demo."""

    title: str
    command: list[str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder of all that it makes (default runs/demo)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--plan", help=f"list of commands in conf/demo/plans (default {PLAN})")
    which.add_argument(
        "--generator",
        action="store_true",
        help="train on generated dialogues only and show what silence weights and delayed answers are worth: --plan generator, "
        "or generator_gpu with --device cuda",
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where the training runs (default cpu)")
    parser.add_argument("--ranks", type=int, help="processes of a training stage (default 2, on a GPU 1)")
    parser.add_argument("--fresh", action="store_true", help="remove an earlier demo in this folder and start over")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and stop")


def load_plan(name: str, values: dict[str, str]) -> list[DemoStep]:
    """Read `conf/demo/plans/<name>.yaml` and fill in `{out}`, `{device}` and `{ranks}`.

    Raises:
        InputError: there is no such plan, or a step lacks a title or command.
    """
    import yaml

    from moss_train.config.compose import conf_dir

    path = conf_dir() / "demo" / "plans" / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml"))) or "none"
        raise InputError(f"--plan {name} is not in {path.parent}; known plans: {known}")
    content: list[dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))["steps"]
    steps = []
    for number, row in enumerate(content, 1):
        if not isinstance(row, dict) or not {"title", "command"} <= row.keys():
            raise InputError(f"{path}: step {number} needs a title and a command")
        words = [word.format(**values) for word in shlex.split(row["command"])]
        steps.append(DemoStep(title=row["title"], command=words))
    return steps


def _plan_name(args: argparse.Namespace) -> str:
    if args.generator:
        return "generator" if args.device == "cpu" else "generator_gpu"
    return args.plan or PLAN


def _executable(command: list[str]) -> list[str]:
    """`moss ...` and `python ...` by this very interpreter, whatever PATH says."""
    if command[0] == "moss":
        return [sys.executable, "-m", "moss_train.cli.main", *command[1:]]
    return [sys.executable if command[0] == "python" else command[0], *command[1:]]


def _run_step(step: DemoStep, number: int, total: int, device: str) -> float:
    """Run one command, its output passing through; returns its wall time in seconds."""
    print(f"\n[{number}/{total}] {step.title}\n  $ {shlex.join(step.command)}", flush=True)
    environment = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    if device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""  # megatron-core would use a GPU that it sees
    begin = time.monotonic()
    code = subprocess.run(_executable(step.command), env=environment, check=False).returncode
    if code != 0:
        raise InputError(
            f"step {number} of the demo ({step.title}) ended with code {code}; mend the cause above and run `moss demo` again: "
            "finished steps are kept"
        )
    stopped = stopped_early(step.command)
    if stopped:
        raise InputError(f"step {number} of the demo ({step.title}) {stopped}; run `moss demo` again: it goes on from there")
    return time.monotonic() - begin


def stopped_early(command: list[str]) -> str:
    """Where a training run was told to end before its last step, which is no failure of `moss train`; empty for all else."""
    run_dir = next((Path(word.partition("=")[2]) for word in command if word.startswith("run_dir=")), None)
    if command[:2] != ["moss", "train"] or run_dir is None or not (run_dir / "latest").is_file():
        return ""
    import yaml

    wanted = int(yaml.safe_load((run_dir / "config.yaml").read_text(encoding="utf-8"))["train"]["steps"])
    done = int((run_dir / "latest").read_text(encoding="utf-8").strip().rpartition("_")[2])
    return f"was told to end behind step {done} of {wanted}" if done < wanted else ""


def _read_finished(path: Path) -> dict[str, float]:
    """Wall time in seconds of every command that an earlier call finished."""
    if not path.is_file():
        return {}
    try:
        finished = json.loads(path.read_text(encoding="utf-8"))
        return {str(command): float(seconds) for command, seconds in finished.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged ({error}); start over with `moss demo --fresh`") from None


def run(args: argparse.Namespace) -> int:
    """Run every step that has not finished yet; prints where the report lies."""
    ranks = (2 if args.device == "cpu" else 1) if args.ranks is None else args.ranks
    if ranks < 1:
        raise InputError(f"--ranks is {ranks}; it must be at least 1")
    values = {"out": str(args.out), "device": args.device, "ranks": str(ranks)}
    steps = load_plan(_plan_name(args), values)
    if args.dry_run:
        print("\n".join(shlex.join(step.command) for step in steps))
        return 0
    done_path = args.out / "finished.json"
    if args.fresh and done_path.is_file():
        shutil.rmtree(args.out)  # a demo's folder, as its finished.json says; old checkpoints would be resumed
    finished = _read_finished(done_path)
    if not finished.keys() <= {shlex.join(step.command) for step in steps}:
        raise InputError(
            f"--out {args.out} holds a demo that ran other commands, whose checkpoints would be taken for this one's; "
            "start over with --fresh or choose another folder"
        )
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "commands.txt").write_text("\n".join(shlex.join(step.command) for step in steps) + "\n", encoding="utf-8")
    changed = False
    for number, step in enumerate(steps, 1):
        key = shlex.join(step.command)
        if key in finished and not changed:
            print(f"[{number}/{len(steps)}] {step.title}: finished before, kept", flush=True)
            continue
        changed = True
        finished[key] = _run_step(step, number, len(steps), args.device)
        partial = done_path.with_name(f".{done_path.name}.tmp")
        partial.write_text(json.dumps(finished, indent=1) + "\n", encoding="utf-8")
        partial.replace(done_path)
    total = sum(finished.get(shlex.join(step.command), 0.0) for step in steps)
    print("\nWall time by step:")
    for step in steps:
        print(f"  {finished[shlex.join(step.command)]:7.1f} s  {step.title}")
    print(f"  {total:7.1f} s  in all\n\nReport: {(args.out / 'report.html').resolve()}")
    return 0
