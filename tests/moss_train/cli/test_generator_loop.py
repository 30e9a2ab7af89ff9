"""From `moss data generate` to the scores: what the generator calls right is what the evaluation calls right."""

from __future__ import annotations

import pytest
import yaml

from inference.evaluation.baselines import run_baseline
from inference.evaluation.schema import Scenario, Trace, TraceEvent
from inference.evaluation.scorers.summary import score
from inference.evaluation.storage import load_scenarios
from moss_train.cli.main import main
from moss_train.config.compose import conf_dir

LEAST_SHARE = 0.04
NEEDED = ("narrate", "direct", "delayed", "alert", "correction", "count", "silence_only", "interruption", "not_yet")


def _told(scenario: Scenario, late: int = 0) -> Trace:
    """Whoever says all that is due, so many frames late."""
    due = {round(span.a * scenario.fps) + late: span.text for span in scenario.spans}
    events = []
    for frame in range(scenario.num_frames):
        t = frame / scenario.fps
        events += [TraceEvent(t=t, kind="token", frame=frame, text=due[frame])] if frame in due else []
        events.append(TraceEvent(t=t, kind="silence", frame=frame))
    return Trace(scenario_id=scenario.id, mode="push", events=events)


def test_the_mix_of_the_demo_shows_every_behaviour_often_enough() -> None:
    weights = yaml.safe_load((conf_dir() / "generator" / "demo.yaml").read_text(encoding="utf-8"))["behaviours"]
    assert all(weights[name] / sum(weights.values()) >= LEAST_SHARE for name in NEEDED)


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory: pytest.TempPathFactory) -> list[Scenario]:
    out = tmp_path_factory.mktemp("corpus") / "generated"
    settings = ["rows.train=0", "rows.validation=0", "rows.test=48", "outputs.shards=false", "outputs.card=false"]
    assert main(["data", "generate", str(out), *settings, "--config", "demo", "--workers", "1"]) == 0
    found = load_scenarios(out / "scenarios" / "test.jsonl")
    assert all((out / "scenarios" / scenario.video).is_file() for scenario in found)
    return found


def test_whoever_says_what_is_due_is_right_in_every_score(scenarios: list[Scenario]) -> None:
    assert len(scenarios) == 48
    scores = score([_told(scenario) for scenario in scenarios], scenarios)
    assert scores["speak"]["f1"] == scores["speak"]["balanced_accuracy"] == scores["speak"]["sentence_accuracy"] == 1.0
    assert scores["speak"]["onset_error_median_frames"] == 0 and scores["speak"]["false_per_minute"] == 0.0
    assert scores["correction"]["spans"] > 0 and scores["correction"]["in_time_right_words"] == 1.0
    assert scores["waiting"]["spans"] > 0 and scores["waiting"]["in_time_right_words"] == 1.0 and scores["waiting"]["early"] == 0
    assert len(scores["by_behaviour"]) >= 8


def test_whoever_is_a_frame_late_is_right_about_alerts_alone(scenarios: list[Scenario]) -> None:
    scores = score([_told(scenario, late=1) for scenario in scenarios], scenarios)
    assert scores["by_kind"]["alert"]["in_time"] >= 0.5  # one that is due at the last frame comes too late
    assert scores["by_kind"]["narration"]["in_time"] < 0.3
    assert scores["speak"]["onset_error_median_frames"] == 1


def test_rows_without_a_model_are_no_better_than_a_coin(scenarios: list[Scenario]) -> None:
    for name in ("always_silent", "every_frame"):
        assert score(run_baseline(name, scenarios), scenarios)["speak"]["balanced_accuracy"] == pytest.approx(0.5, abs=0.01)
