"""Predicted times and growth: they follow bytes and bandwidths, and stay near what `moss plan` says."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moss_train.cli.main import main
from moss_train.config.compose import compose
from moss_train.config.schema import RunConfig
from moss_train.planning.communication.scaling import (
    CommunicationPlan,
    efficiency,
    plan_communication,
    strong_scaling,
    weak_scaling,
)
from moss_train.planning.data_items import SourceVideo
from moss_train.planning.expected import ExpectedPack, expected_pack, workload_stream
from moss_train.planning.hardware import Cluster
from moss_train.planning.step_time import step_time

H100 = Cluster.of("H100")
PACK = ExpectedPack(8192, 120.0, 6.0, 6e6, 1e5, 6000.0, "a test's pack")


def config_of(*overrides: str) -> RunConfig:
    return compose(["stage=pt2", "model=11b", "train.global_batch_size=512", *overrides])


def planned(config: RunConfig, ranks: int, cluster: Cluster = H100) -> CommunicationPlan:
    return plan_communication(config, ranks, cluster, PACK, None)


LAYOUTS = [["parallel=single"], ["parallel=tp2"], ["parallel=tp8"], ["parallel.tensor=8"], ["parallel=pp2"],
           ["parallel.tensor=4", "parallel.recompute=full"], ["parallel=tp2_pp2"]]  # fmt: skip


@pytest.mark.parametrize("overrides", LAYOUTS, ids=[" ".join(words) for words in LAYOUTS])
@pytest.mark.parametrize("ranks", [8, 64, 512])
def test_steps_take_about_as_long_as_moss_plan_says(overrides: list[str], ranks: int) -> None:
    """It counts no transfers of pipelines and no sums for features, and lets a ring use one card of a node: a quarter at most."""
    config = config_of(*overrides)
    ours = planned(config, ranks)
    theirs = step_time(config, ranks, PACK.work(512), H100, ours.micro_batches)
    assert 1 / 1.25 < ours.step / theirs.total < 1.25
    if ranks == 8:
        assert 0.95 < ours.communication / (theirs.total - ours.computing.total) < 1.5


def test_sequence_parallelism_moves_a_quarter_more_in_the_layers() -> None:
    """The gathers before products are made once more backward, for the weights' gradients."""
    plain, scattered = (planned(config_of(*words), 8) for words in (["parallel.tensor=8"], ["parallel=tp8"]))

    def moved(plan: CommunicationPlan) -> float:
        return sum(float(row["wire"]) for row in plan.rows() if row["purpose"] == "activations")

    features = next(r["wire"] for r in scattered.rows() if (r["purpose"], r["kind"]) == ("activations", "all-reduce"))
    assert (moved(scattered) - features) / (moved(plain) - features) == pytest.approx(1.25, abs=0.01)


@settings(max_examples=6, deadline=None)
@given(st.sampled_from([8, 16, 64]), st.floats(50, 3200), st.sampled_from(LAYOUTS))
def test_faster_networks_never_make_steps_longer(ranks: int, gbps: float, overrides: list[str]) -> None:
    config = config_of(*overrides)
    slow, fast = (planned(config, ranks, Cluster.of("H100", network_gbps=rate)) for rate in (gbps, 2 * gbps))
    assert fast.step <= slow.step and fast.computing == slow.computing
    for plan in (slow, fast):
        assert 0 <= plan.exposed <= plan.communication
        assert sum(row["share"] for row in plan.rows()) == pytest.approx(plan.communication / plan.step)
    assert ranks > 8 or fast.step == slow.step


def test_growth_is_measured_against_the_first_number_that_fits() -> None:
    config = config_of("parallel=tp8", "train.global_batch_size=16")
    strong = strong_scaling(config, [4, 8, 16, 128, 256], H100, PACK, None)
    assert [point.plan is None for point in strong] == [True, False, False, False, True]
    assert "does not divide" in strong[0].reason and "not a multiple" in strong[4].reason
    shares = efficiency(strong)
    assert shares[:2] == [None, 1.0] and shares[4] is None
    assert shares[3] is not None and shares[3] < 1.0
    weak = weak_scaling(config, [8, 64], H100, PACK, None)
    assert [p.plan.config.train.global_batch_size for p in weak if p.plan] == [16, 128]
    assert efficiency(weak)[1] == pytest.approx(1.0, abs=0.05)


def test_real_packs_move_frames_between_replicas() -> None:
    config = config_of("train.global_batch_size=8")
    stream = workload_stream(config, SourceVideo.parse("1920x1080@30"))
    pack = expected_pack(config, stream, "the workload")
    drawn = plan_communication(config, 8, H100, pack, stream)
    even = plan_communication(config, 8, H100, dataclasses.replace(pack, frames=round(pack.frames)), None)
    assert {key.purpose for key, _ in drawn.traffic} - {key.purpose for key, _ in even.traffic} == {"pixels", "features"}


def _json(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["plan", "communication", *arguments, "--json"]) == 0
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


def test_the_command_prints_calls_and_growth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["stage=pt1", "model=11b", "parallel=tp8", "train.global_batch_size=8", "--gpu", "H100", "--ranks", "8", "64"]
    content = _json(arguments, capsys)
    assert content["ranks"] == 8 and {row["link"] for row in content["rows"]} == {"NVLink"}
    assert [point["ranks"] for point in content["weak"]] == [8, 64] and content["strong"][1]["efficiency"] > 0.5
    assert content["seconds"]["step"] == pytest.approx(content["seconds"]["computing"] + content["seconds"]["communication"])
    plot = tmp_path / "growth.svg"
    assert main(["plan", "communication", *arguments, "--plot", str(plot)]) == 0
    shown = capsys.readouterr().out
    assert plot.read_text(encoding="utf-8").count("<circle") >= 4
    assert "reduce-scatter" in shown and "Weak scaling" in shown and "samples/s" in shown


def test_what_cannot_be_planned_ends_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    for words, told in (
        (["engine=deepspeed"], "engine is deepspeed"),
        (["parallel=tp8", "--ranks", "4"], "does not divide the 4 ranks"),
        (["--ranks", "none"], "--ranks has 'none'"),
        (["--plot", "x.svg"], "one number of GPUs grows nowhere"),
        (["--ranks", "2", "4", "--plot", "nowhere/x.svg"], "there is no folder"),
    ):
        assert main(["plan", "communication", "stage=pt1", *words]) == 2
        assert told in capsys.readouterr().err
