"""Runs lmms-eval's own command several times in one process, whose imports take longest.

Arguments: a JSON file with a list of command lines, each a list of words; a file for what lmms-eval knows of published tasks.
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


def describe(path: Path) -> None:
    """What lmms-eval's own task manager finds of the published table's tasks."""
    from lmms_eval.tasks import TaskManager
    from lmms_eval.utils import load_yaml_config

    from inference.evaluation.published.table import GROUP, TASKS, load_table

    manager = TaskManager("WARNING", include_path=str(TASKS))
    own = load_yaml_config(str(TASKS / "moss_zerobench_subquestions.yaml"))
    doc = {"question_id": "1", "question_text": " How many? ", "question_answer": "3", "question_images_decoded": []}
    known = {
        "unknown": [task for task in load_table().tasks if task not in manager.all_tasks],
        "group": manager.match_tasks([GROUP]),
        "members": manager._get_config(GROUP)["task"],
        "text": own["doc_to_text"](doc, {}),
        "scores": [own["process_results"](doc, [said])["zerobench_exact_match"]["score"] for said in ("3.0", "four")],
    }
    path.write_text(json.dumps(known))


if __name__ == "__main__":
    arguments = sys.argv[1:]
    run()
    describe(Path(arguments[1]))
