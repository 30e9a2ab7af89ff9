"""A task folder for lmms-eval: two videos with three questions each, a conversation about each, a choice about each."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

FUNCTIONS = """
def visuals(doc):
    return [doc["video"]]

def pictures(doc):
    from PIL import Image
    return [Image.open(path) for path in doc["pictures"]]

def text(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]

def score(doc, results):
    return {"right": float(results[0].strip() == doc["answer"])}

def rounds(doc, lmms_eval_specific_kwargs=None, previous_output=None, round_idx=None, previous_round_info=None):
    if round_idx is None:
        return doc["questions"][0]
    if round_idx == len(doc["questions"]):
        assert previous_round_info == round_idx - 1 or round_idx == 1
        return None, None, True, previous_output, None
    assert len(previous_output) == round_idx
    return [doc["video"]], doc["questions"][round_idx] + previous_output[-1][:3], False, previous_output, round_idx

def score_rounds(doc, results):
    said = results[0]
    return {"right": sum(a == b for a, b in zip(said, doc["answers"], strict=True)) / len(said)}
"""


def write_tasks(folder: Path, docs: dict[str, list[dict[str, Any]]]) -> None:
    """made_up_questions, made_up_pictures, made_up_talks, made_up_choices, and the group made_up of the first three.

    Args:
        docs: documents of each. questions: video, question, answer. pictures: pictures, question, answer.
            talks: video, questions, answers. choices: video, question, options, right (the index of an option).
    """
    folder.mkdir(parents=True)
    (folder / "utils.py").write_text(FUNCTIONS)
    greedy = {"max_new_tokens": 6, "temperature": 0, "do_sample": False}
    right = [{"metric": "right", "aggregation": "mean", "higher_is_better": True}]
    for name, config in {
        "questions": {
            "output_type": "generate_until",
            "doc_to_text": "!utils.text",
            "doc_to_target": "answer",
            "process_results": "!utils.score",
            "generation_kwargs": greedy,
            "metric_list": right,
        },
        "pictures": {
            "doc_to_visual": "!utils.pictures",
            "output_type": "generate_until",
            "doc_to_text": "!utils.text",
            "doc_to_target": "answer",
            "process_results": "!utils.score",
            "generation_kwargs": greedy | {"until": ["ap", "\n\n"]},
            "metric_list": right,
        },
        "talks": {
            "output_type": "generate_until_multi_round",
            "doc_to_text": "!utils.rounds",
            "doc_to_target": "video",
            "process_results": "!utils.score_rounds",
            "generation_kwargs": greedy,
            "metric_list": right,
        },
        "choices": {
            "output_type": "multiple_choice",
            "doc_to_text": "!utils.text",
            "doc_to_choice": "options",
            "doc_to_target": "right",
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        },
    }.items():
        _write(folder, f"made_up_{name}", docs[name], config)
    group = {"group": "made_up", "task": ["made_up_questions", "made_up_pictures", "made_up_talks"]}
    (folder / "made_up.yaml").write_text(yaml.safe_dump(group, sort_keys=False))


def _write(folder: Path, name: str, docs: list[dict[str, Any]], config: dict[str, Any]) -> None:
    data = folder / f"{name}.json"
    data.write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    source = {"task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}, "test_split": "test"}
    text = yaml.safe_dump(source | {"doc_to_visual": "!utils.visuals"} | config, sort_keys=False)
    (folder / f"{name}.yaml").write_text(re.sub(r"'!(utils\.\w+)'", r"!function \1", text))
