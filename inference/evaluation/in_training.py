"""A small evaluation of a model that trains in this process: its weights come tensor by tensor, traces go as plain values."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from data_pipeline.text.tokenizer import Tokenizer
from inference.cache.store import KVStore
from inference.engine import StepEngine
from inference.evaluation.running.frames import check_media
from inference.evaluation.running.runner import ScenarioRunner
from inference.evaluation.running.settings import RunSettings
from inference.evaluation.schema import Scenario, Trace
from inference.evaluation.scorers.summary import score
from inference.evaluation.scoring import pair
from inference.evaluation.storage import load_scenarios
from inference.evaluation.suites.registry import get_suite
from inference.model.load import ModelBuilder
from model.config import VideoMllamaConfig


class TrainingScorer:
    """Runs the first scenarios of a file, as `moss eval --limit` does.

    Args:
        config: the model.
        tokenizer: of the run.
        scenarios: JSON-lines file; videos are named relative to it.
        limit: scenarios that are run.
        together: scenarios that one pass of the model serves.
        settings: pace and limits.
        label: what messages call the model.

    Raises:
        InputError: the file, or a video that it names, is missing or wrong.
    """

    def __init__(
        self,
        config: VideoMllamaConfig,
        tokenizer: Tokenizer,
        scenarios: Path,
        *,
        limit: int,
        together: int,
        settings: RunSettings,
        label: Path,
    ) -> None:
        self._config, self._tokenizer, self._folder = config, tokenizer, scenarios.parent
        self._together, self._settings, self._label = together, settings, label
        self.scenarios: list[Scenario] = load_scenarios(scenarios)[:limit]
        for scenario in self.scenarios:
            check_media(scenario, self._folder)
        self._builder: ModelBuilder | None = None

    def begin(self, device: torch.device, dtype: torch.dtype) -> None:
        """Get ready for the weights."""
        self._builder = ModelBuilder(self._config, device, dtype, self._label, {})

    def take(self, name: str, tensor: torch.Tensor) -> None:
        """One published tensor; it is not copied where device and dtype are right already, and never written to."""
        assert self._builder is not None
        self._builder.take(name, tensor)

    def run(self, share: int, shares: int) -> list[Trace]:
        """Traces of this rank's share of the scenarios. How they are grouped does not depend on the number of shares.

        Raises:
            InputError: weights are missing, or a video is damaged or too short.
        """
        assert self._builder is not None
        model = self._builder.finish()
        # Beside a training run memory is scarce: a store that begins small, and no graphs.
        engine = StepEngine(model, KVStore(model.config, model.device, model.dtype), graphs=False)
        runner = ScenarioRunner(engine, self._tokenizer, self._folder, self._settings, label=str(self._label), strict=True)
        begins = range(0, len(self.scenarios), self._together)
        groups = [self.scenarios[begin : begin + self._together] for begin in begins][share::shares]
        return [trace for group in groups for found in runner.run(group) for trace in found]

    def score(self, parts: Iterable[Sequence[Trace]]) -> dict[str, float]:
        """Flat figures of all ranks' traces; what was not asked for, and what has no value, is left out."""
        order = {scenario.id: place for place, scenario in enumerate(self.scenarios)}
        traces = sorted((trace for part in parts for trace in part), key=lambda trace: order[trace.scenario_id])
        own = flat(score([trace for trace in traces if trace.mode in ("push", "offline")], self.scenarios))
        return own | self._suites(traces) | {"scenarios": float(len(self.scenarios))}

    def _suites(self, traces: Sequence[Trace]) -> dict[str, float]:
        """The main metric of each benchmark among the scenarios; what needs a judge has none here."""
        found: dict[str, float] = {}
        for name in dict.fromkeys(scenario.suite for scenario in self.scenarios if scenario.suite not in ("", "world")):
            suite = get_suite(name)
            pairs = [(trace, scenario) for trace, scenario in pair(traces, self.scenarios) if scenario.suite == name]
            value = suite.aggregate(suite.score(pairs, None)).get(suite.main)
            if value is not None:
                found[f"{name}_{suite.main.replace('.', '_')}"] = value
        return found

    def forget(self) -> None:
        """Let go of the weights."""
        self._builder = None
        gc.collect()  # layers and caches may refer to each other


def flat(scores: dict[str, Any]) -> dict[str, float]:
    """Scores under names of one word: speak_f1, silence_f1, question_accuracy, question_accuracy_colour, …"""
    found: dict[str, float | None] = {}
    for kind, value in sorted(scores["qa"].items()):
        found["question_accuracy" if kind == "all" else f"question_accuracy_{kind}"] = value
    for section in ("speak", "speak_within_one", "silence"):
        for name, value in scores.get(section, {}).items():
            found[f"{section}_{name}"] = value
    return {name: float(value) for name, value in found.items() if value is not None}
