"""Started as the ranks of a check: refuses every trial, and dies after the first one of a layout with two presets."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from moss_train.parallel.spawn import answer, report_progress
from moss_train.verify.layouts.findings import TrialResult
from moss_train.verify.layouts.names import parse_layout, trials_of


def work(request: dict[str, Any]) -> list[Any]:
    for name in [] if request["write_reference"] else request["layouts"]:
        layout = parse_layout(name)
        for trial in trials_of(layout, request["presets"], request["bf16"]):
            result = TrialResult(layout.name, 1, trial.preset, trial.optimizer, trial.dtype, error="refused by the ranks")
            report_progress(result.judge().as_json())
            if len(layout.presets) == 2:
                os._exit(3)
    return []


if __name__ == "__main__":
    request_file = Path(sys.argv[2])
    sys.exit(answer(Path(sys.argv[1]), lambda: work(json.loads(request_file.read_text()))))
