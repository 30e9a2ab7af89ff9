"""What the check leaves: report.json, a table, a line for each fault. Imports no torch."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moss_train.checkpoint.description import write_atomically
from moss_train.preflight.findings import BAD, CHECKS, OK, WARNING, Finding, Verdict

EXIT_BAD_NODE = 6
"""Exit code of `moss preflight` on all nodes where one of them is bad, or their faults are those of no single node."""
FILE = "report.json"
ROWS = 40
"""Nodes in the table; with more of them, only those that are not well."""
_COLOURS = {OK: "green", WARNING: "yellow", BAD: "red"}
_TITLES = {"answer": "answer", "all-reduce": "all-reduce"}


def clear_report(out: Path) -> None:
    """Take an older report away: it says nothing about this start."""
    try:
        (out / FILE).unlink(missing_ok=True)
    except OSError:
        return  # it cannot be written either, which is said then


def write_report(
    out: Path,
    verdict: Verdict,
    facts: Mapping[int, Mapping[str, str]],
    gbytes: float | None,
    *,
    began: float,
    code: int,
) -> None:
    """Write report.json as a whole; a folder that refuses is a sentence, since the check has found that as well."""
    content: dict[str, Any] = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
        "seconds": round(time.time() - began, 3),
        "exit_code": code,
        "allreduce_gbytes": gbytes,
        "bad": [{"node": name, "why": why} for name, why in verdict.bad],
        "faults": verdict.faults,
        "warnings": [{"node": name, "why": why} for name, why in verdict.warnings],
        "nodes": {
            verdict.names[node]: {"rank": node, "facts": facts.get(node, {}), "checks": [f.as_dict() for f in found]}
            for node, found in verdict.findings.items()
        },
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / FILE, json.dumps(content, indent=1))
    except OSError as error:
        print(f"moss: preflight: {out / FILE} cannot be written: {error.strerror or error}", file=sys.stderr, flush=True)


def print_report(verdict: Verdict, out: Path) -> None:
    """A table on stdout, and on stderr a line for everything that is not well."""
    from rich.console import Console
    from rich.table import Table

    checks = [check for check in CHECKS if any(f.check == check for found in verdict.findings.values() for f in found)]
    table = Table(title=f"Nodes ({out / FILE})", title_justify="left")
    for column in ("node", *checks):
        table.add_column(column)
    nodes = list(verdict.findings)
    shown = nodes if len(nodes) <= ROWS else [node for node in nodes if verdict.level(node) != OK]
    for node in shown:
        table.add_row(verdict.names[node], *(_cell(verdict.findings[node], check) for check in checks))
    if len(shown) < len(nodes):
        table.add_row(f"{len(nodes) - len(shown)} others", *["[green]ok[/]"] * len(checks))
    console = Console(highlight=False)
    console = console if console.is_terminal else Console(highlight=False, width=180)
    console.print(table)
    for name, why in verdict.warnings:
        print(f"moss: preflight: warning: node {name}: {why}", file=sys.stderr)
    for name, why in verdict.bad:
        print(f"moss: preflight: node {name}: {why}", file=sys.stderr)
    for fault in verdict.faults:
        print(f"moss: preflight: {fault}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()


def _cell(findings: list[Finding], check: str) -> str:
    found = [finding for finding in findings if finding.check == check]
    if not found:
        return "-"
    worst = next(level for level in (BAD, WARNING, OK) if any(f.level == level for f in found))
    return f"[{_COLOURS[worst]}]{', '.join(dict.fromkeys(f.value for f in found if f.level == worst))}[/]"
