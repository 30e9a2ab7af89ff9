"""SVBench's annotations: for each video a file of question chains and, where there are, one of linkages between them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inference.evaluation.schema import Question, Scenario
from inference.evaluation.suites.importing import Videos, load_templates, make_manifest, read_list, seconds_of, take, texts
from inference.evaluation.suites.suite import Imported, ImportOptions
from inference.evaluation.suites.svbench.prompts import TEMPLATES
from model.errors import InputError


def load(path: Path, options: ImportOptions) -> Imported:
    """One scenario for each video: each question is asked at the end of its scene, behind those of its chain.

    Args:
        path: folder of chain files called as their videos; or one with these in `chains` and linkages, under the same names, in
            `linkages`.

    Raises:
        InputError: no files, a file that is not of the release, no video at all.
    """
    chains = path / "chains" if (path / "chains").is_dir() else path
    files = sorted(chains.glob("*.json"))[: options.limit] if chains.is_dir() else []
    if not files:
        raise InputError(f"{path} holds no chains of questions; give the folder of one JSON file for each video")
    templates, videos = load_templates(TEMPLATES, options.prompts), Videos(options.videos)
    scenarios, used = [], []
    for file in files:
        video = videos.find(file.stem)
        if video is None:
            continue
        used.append(file)
        linked = path / "linkages" / file.name
        links = read_list(linked) if linked.is_file() else []
        scenarios.append(_scenario(file, video, links, videos, options, templates))
    manifest = make_manifest(
        "svbench",
        options,
        used,
        templates,
        scenarios,
        videos,
        license="see the page of the data set",
        source="https://huggingface.co/datasets/yzy666/SVBench",
        context_seconds=options.context_seconds,
        notes=["earlier questions of a chain come with their true answers"],
    )
    return Imported(scenarios, manifest)


def _scenario(
    file: Path, video: str, links: list[Any], videos: Videos, options: ImportOptions, templates: Mapping[str, str]
) -> Scenario:
    questions: list[Question] = []
    scenes: dict[int, tuple[float, list[int]]] = {}
    for number, scene in enumerate(read_list(file)):
        where = f"{file} scene {number}"
        if not scene:  # a scene that got no chain
            continue
        chain = take(scene, "chain", dict, where)
        asked, answers = texts(chain, "questions", where), texts(chain, "answers", where)
        if not asked or len(asked) != len(answers):
            raise InputError(f"{where} has {len(asked)} questions and {len(answers)} answers; give as many")
        begin, t = (seconds_of(scene.get(name), where) for name in ("qac_timestamps_start", "qac_timestamps_end"))
        context = options.context_seconds
        first = len(questions)
        for place, (question, answer) in enumerate(zip(asked, answers, strict=True)):
            questions.append(
                Question(
                    text=templates["question"].format(question=question),
                    answer=answer,
                    kind="chain",
                    t=t,
                    since=t - context if context is not None and t > context else None,
                    after=list(range(first, first + place)),
                    meta={"question": question, "scene": number},
                )
            )
        scenes[number] = (begin, list(range(first, len(questions))))
    if not questions:
        raise InputError(f"{file} has no scene with a chain; leave the file out")
    last = max(question.t or 0.0 for question in questions)
    return Scenario(
        id=file.stem,
        suite="svbench",
        fps=options.fps,
        num_frames=max(1, videos.frames(video, options.fps, until=last)),
        video=video,
        questions=questions,
        source="SVBench",
        meta={"path": _path(file, scenes, links)},
    )


def _path(file: Path, scenes: Mapping[int, tuple[float, list[int]]], links: list[Any]) -> list[dict[str, Any]]:
    """Linked questions of each scene and its next, in the order of time: numbers of both, and how they hang together."""
    by_begin: dict[float, tuple[str, dict[str, Any]]] = {}
    for number, link in enumerate(links):
        where = f"linkages of {file.name} entry {number}"
        chain = take(link, "chain_1", dict, where)
        by_begin.setdefault(
            seconds_of(chain.get("qac_timestamps_start"), where), (where, take(link, "relationship", dict, where))
        )
    found = []
    numbers = list(scenes)
    for here, following in itertools.pairwise(numbers):
        begin, own = scenes[here]
        where, relation = by_begin.get(begin, ("", {}))
        if not relation:
            continue
        sides = []
        for name, questions in (("chainBefore", own), ("chainAfter", scenes[following][1])):
            places = take(relation, name, list, where)
            if not all(isinstance(place, int) and 0 <= place < len(questions) for place in places):
                raise InputError(f"{where}: {name} is {places}; the scene has {len(questions)} questions, counted from 0")
            sides.append([questions[place] for place in places])
        found.append({"before": sides[0], "after": sides[1], "relation": str(relation.get("relationship", ""))})
    return found
