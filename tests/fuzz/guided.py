"""One target under atheris: `python -m tests.fuzz.guided TARGET FOLDER INPUTS SEED MEMORY_MB`; started by `tests.fuzz.run`."""

from __future__ import annotations

import json
import logging
import random
import resource
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["data_pipeline"]):
    from tests.fuzz.run import feed
    from tests.fuzz.targets import all_targets


def main() -> None:
    name, place, inputs, seed, memory = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:6])
    logging.disable(logging.CRITICAL)
    target = all_targets(place / "files")[name]
    corpus = place / "corpus"
    corpus.mkdir()
    for number, data in enumerate(target.seeds):
        (corpus / str(number)).write_bytes(data)
    outcomes: Counter[str] = Counter()
    faults: dict[str, dict[str, str]] = {}
    before, begin = _peak(), time.process_time()

    def one(data: bytes) -> None:
        outcomes[feed(target, data, faults)] += 1
        total = sum(outcomes.values())
        if total % 50 == 0 or total >= inputs:  # the engine ends the process without a word
            report: dict[str, Any] = {"inputs": total, "outcomes": dict(outcomes), "peak_growth_mb": round(_peak() - before, 1)}
            report |= {"cpu_seconds": round(time.process_time() - begin, 1), "faults": list(faults.values())}
            (place / "report.json").write_text(json.dumps(report))

    def damaged(data: bytes, _max_size: int, number: int) -> bytes:
        """Half of the time the engine's own changes, else ours, which keep JSON readable."""
        if number % 2:
            return bytes(atheris.Mutate(data, max(len(data) * 2, 64)))
        try:
            return target.mutate(data, random.Random(number))
        except ValueError:  # ours needs a document that can be read
            return bytes(atheris.Mutate(data, max(len(data) * 2, 64)))

    options = [
        f"-runs={inputs}",
        f"-seed={seed}",
        f"-rss_limit_mb={memory + 2048}",
        "-timeout=120",
        "-max_len=200000",
        "-verbosity=0",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], one, custom_mutator=damaged)
    atheris.Fuzz()


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
