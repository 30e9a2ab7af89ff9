"""What launch/gpu_scaling.sh found in one file: `python -m moss_train.bench.scaling.joined GPUS OUT` writes gpus-GPUS.json."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PARTS = {"parity": "parity.json", "scaling": "scaling.json", "full": "fleet.json"}
"""Of the script, and what each writes."""


def joined(gpus: int, folder: Path) -> dict[str, Any]:
    """What each part wrote, null where it wrote nothing, and how it ended: exit code and seconds."""
    ended: dict[str, dict[str, int]] = {}
    table = folder / "scaling-parts.tsv"
    if table.is_file():
        with table.open(encoding="utf-8", newline="") as stream:
            for name, code, seconds in csv.reader(stream, delimiter="\t"):
                ended[name] = {"exit_code": int(code), "seconds": int(seconds)}
    found: dict[str, Any] = {"gpus": gpus, "parts": ended}
    for part, name in PARTS.items():
        path = folder / name
        found[part] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Write it."""
    words = sys.argv[1:] if argv is None else argv
    gpus, folder = int(words[0]), Path(words[1])
    (folder / f"gpus-{gpus}.json").write_text(json.dumps(joined(gpus, folder), indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
