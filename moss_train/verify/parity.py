"""Joins what the parts of launch/gpu_parity.sh found into one file and a table. Imports no torch.

Usage: python -m moss_train.verify.parity [--gpus N] OUT

OUT holds layouts.json and ranks.json, as `moss verify layouts` and `moss verify ranks` write them, and parts.tsv; parity.json and
parity.txt are written beside them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from moss_train.verify.layouts.findings import BF16_REFERENCE, Findings
from moss_train.verify.ranks.findings import CaseResult
from moss_train.verify.ranks.report import as_text, worst

PARTS = ("layouts", "ranks")


def row_of(result: dict[str, Any], on_gpu: bool) -> dict[str, Any]:
    """One trial of `moss verify layouts` as a flat row; differences are relative."""
    row = {name: result[name] for name in ("layout", "ranks", "preset", "optimizer", "modules", "dtype", "made_of", "seconds")}
    row["reasons"], row["skipped"] = list(result["reasons"]), bool(result["skipped"])
    if result["findings"] is not None:
        found = Findings.of(result["findings"])
        row |= {"loss": found.loss.value, "norm": found.norm.value, "weights": found.weights.value}
        row["gradients"] = found.all_gradients
        row["largest_gradient"] = None if found.gradients is None else list(found.gradients)
        row["reasons"] += other_modules(result["modules"], result["made_of"], on_gpu)
    row["passed"] = not row["reasons"] and not row["skipped"]
    return row


def other_modules(modules: str, made_of: str, on_gpu: bool) -> list[str]:
    """A reason where a model on a GPU is not made of what this check is for, going by `trial.described`."""
    if not on_gpu or modules != "auto" or not made_of or ("Engine" in made_of and made_of.endswith("tower fused")):
        return []
    return [f"{made_of} is not what a run on a GPU is made of: Transformer Engine's products and a fused tower"]


def read_parts(out: Path) -> dict[str, dict[str, Any]]:
    """What the parts wrote, by name; those that wrote nothing are left out."""
    found = {}
    for name in PARTS:
        file = out / f"{name}.json"
        if file.is_file():
            found[name] = json.loads(file.read_text(encoding="utf-8"))
    return found


def read_codes(out: Path) -> dict[str, dict[str, float]]:
    """Exit code and seconds of each part that ended."""
    file = out / "parts.tsv"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return {name: {"code": int(code), "seconds": float(seconds)} for name, code, seconds in (line.split("\t") for line in lines)}


def wrong_with(name: str, part: dict[str, Any], codes: dict[str, dict[str, float]], gpus: int | None) -> list[str]:
    """What of a part no single result tells."""
    found = [
        f"{what} of {name} is {part[what]}, not {gpus}" for what in ("ranks", "gpus") if gpus is not None and part[what] < gpus
    ]
    if not part["results"]:
        found.append(f"{name} has no result")
    if code := codes.get(name, {}).get("code", 0):
        found.append(f"{name} ended with exit code {code}" + ", when its time was over" * (code in (124, 137)))
    return found


def joined(out: Path, gpus: int | None) -> dict[str, Any]:
    """Everything that parity.json says."""
    parts, codes = read_parts(out), read_codes(out)
    first = next(iter(parts.values()), {})
    on_gpu = first.get("gpus", 0) > 0
    layouts = [row_of(result, on_gpu) for result in parts.get("layouts", {}).get("results", [])]
    layouts = [row for row in layouts if row["layout"] != BF16_REFERENCE]
    checks = [CaseResult(**content) for content in parts.get("ranks", {}).get("results", [])]
    for check in checks:
        check.reasons += other_modules(check.modules, check.made_of, on_gpu)
    unfinished = [name for name in PARTS if not parts.get(name, {}).get("complete", False)]
    wrong = [reason for name, part in parts.items() for reason in wrong_with(name, part, codes, gpus)]
    failed = sum(bool(row["reasons"]) for row in layouts) + sum(check.verdict == "FAILS" for check in checks)
    left_out = sum(row["skipped"] for row in layouts) + sum(check.verdict == "skipped" for check in checks)
    return {
        "device": first.get("device"),
        "gpus": first.get("gpus"),
        "ranks": first.get("ranks"),
        "versions": first.get("versions"),
        "tolerances": first.get("tolerances"),
        "parts": codes,
        "unfinished": unfinished,
        "wrong": wrong,
        "passed": len(layouts) + len(checks) - failed - left_out,
        "failed": failed,
        "left_out": left_out,
        "all_passed": bool(parts) and not (failed or left_out or unfinished or wrong),
        "layouts": layouts,
        "checks": [check.as_json() | {"passed": check.verdict == "ok"} for check in checks],
    }


def table(content: dict[str, Any]) -> str:
    """What a person reads."""
    versions = content["versions"] or {}
    names = ("torch", "nccl", "transformer-engine", "flash-attn", "megatron-core")
    known = ", ".join(f"{name} {versions[name]}" for name in names if versions.get(name))
    lines = [f"{content['ranks']} ranks on {content['gpus']} x {content['device']}: {known}", ""]
    header = ["layout", "modules", "optimizer", "loss", "norm", "gradients", "weights", "seconds", ""]
    rows = [header]
    for row in content["layouts"]:
        numbers = ["-" if row.get(key) is None else f"{row[key]:.1e}" for key in ("loss", "norm", "gradients", "weights")]
        verdict = "FAILS" if row["reasons"] else "no time" if row["skipped"] else "ok"
        kind = f"{row['modules']} {row['dtype']}"
        rows.append([row["layout"], kind, row["optimizer"], *numbers, f"{row['seconds']:.1f}", verdict])
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    checks = [CaseResult(**{key: value for key, value in check.items() if key != "passed"}) for check in content["checks"]]
    lines += ["", as_text(checks)] if checks else []
    lines += [f"golden {check.layout}: {worst(check)}" for check in checks if worst(check)]
    lines += [f"made of: {made}" for made in dict.fromkeys(row["made_of"] for row in content["layouts"] if row["made_of"])]
    for row in content["layouts"]:
        lines += [f"{row['layout']} {row['modules']} {row['optimizer']}: {reason}" for reason in row["reasons"]]
    for check in checks:
        lines += [f"{check.check} {check.layout} {check.modules}: {reason}" for reason in check.reasons]
    lines += [f"part {name} was not finished, see {name}.log" for name in content["unfinished"]] + content["wrong"]
    lines.append(f"{content['passed']} passed, {content['failed']} failed, {content['left_out']} left out")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """0 where everything was run and passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, metavar="N", help="how many ranks and GPUs it must have been")
    parser.add_argument("out", type=Path)
    args = parser.parse_args(arguments)
    content = joined(args.out, args.gpus)
    text = table(content)
    for name, written in (("parity.json", json.dumps(content, indent=1)), ("parity.txt", text)):
        partial = args.out / f".{name}.tmp"
        partial.write_text(written + "\n", encoding="utf-8")
        partial.replace(args.out / name)
    print(text)
    return 0 if content["all_passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
