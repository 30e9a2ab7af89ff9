"""Runs lmms-eval's own command several times in one process, whose imports take longest.

Arguments: a JSON file with a list of command lines, each a list of words.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def run() -> None:
    from lmms_eval.cli.dispatch import main

    for words in json.loads(Path(sys.argv[1]).read_text()):
        sys.argv = ["lmms-eval", *words]
        main()


if __name__ == "__main__":
    run()
