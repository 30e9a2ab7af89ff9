"""What the plan says of a step is what real ranks send in one, to the byte, on every rank."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from model.errors import InputError
from moss_train.planning.communication.calls import Calls, Key, Traffic
from moss_train.planning.communication.step import step_traffic
from moss_train.verify.communication.case import Case
from moss_train.verify.communication.report import MODULE, Result, as_markdown, as_text, count_cases, result_of
from moss_train.verify.communication.trial import run_config, shape_of
from tests.moss_train.runs import run_config as run_on_shards
from tests.moss_train.runs import save_run_config, write_data
from tests.ranks import REPOSITORY, Answer, RunRanks

FROZEN = "vision+projector+xattn"
EVERYWHERE = "attention_qkv,attention_proj,cross_q,cross_kv,cross_proj,mlp_fc1,mlp_fc2,vision_attention,vision_mlp"
TWO_RANKS = [
    Case("dp2", dtype="bf16", grad_fp32=False, window_gib=1e-6),
    Case("dp2", "dense_labels"),
    Case("tp2", optimizer="muon"),
    Case("tp2.sp", FROZEN),
    Case("tp2.sp.rc", lora=f"{EVERYWHERE},projector,norms,gates"),
    Case("pp2.vpp2", "projector_only", "whole"),
    Case("cp2", "projector_only"),
    Case("cp2", optimizer="whole", lora="cross_kv,cross_proj"),
]
MORE = [
    Case("tp2.rc", "projector_only"),
    Case("tp2.sp", "text_only", "whole"),
    Case("tp2", lora="mlp_fc1,mlp_fc2"),
    Case("pp2", lora=EVERYWHERE),
    Case("cp2.rc", frames=False),
    Case("cp2", lora="cross_q,cross_kv,cross_proj,projector,gates"),
    Case("tp2.dp2", dtype="bf16"),
    Case("tp2.sp.cp2", lora=EVERYWHERE),
]
"""For whoever has time for them."""
FOUR_RANKS = [
    Case("tp2.sp.pp2"),
    Case("tp2.cp2", "projector_only"),
    Case("pp2.vpp2.dp2", FROZEN, "whole"),
]


def _purposes(result: Result) -> set[str]:
    return {row.key.purpose for row in result.rows}


@pytest.mark.ranks
@pytest.mark.parametrize(
    "cases", [TWO_RANKS, FOUR_RANKS, pytest.param(MORE, marks=pytest.mark.slow)], ids=["two", "four", "more"]
)
def test_real_steps_send_what_is_planned(answer_of_ranks: Answer, cases: list[Case]) -> None:
    results = count_cases(cases, answer_of_ranks)
    assert [result.case for result in results] == cases
    assert not [reason for result in results for reason in result.reasons]
    for result in results:
        found, sizes = _purposes(result), result.case.sizes
        assert {"feed", "control"} <= found and "elsewhere" not in found
        towers = result.case.preset != "text_only" and (not result.case.lora or "vision" in result.case.lora)
        assert ("gradients" in found) == (towers or sizes.context > 1 or "dp" in result.case.layout)
        assert ("activations" in found) == (sizes.tensor > 1)
        assert ("context" in found) == (sizes.context > 1)
        assert ("pipeline" in found) == (sizes.pipeline > 1)
        assert ("weights" in found) == (result.case.optimizer == "sharded" and "gradients" in found)
        assert ("pixels" in found) == result.case.frames
        assert all(row.key.group != "elsewhere" for row in result.rows)


RANKS: dict[str, Any] = {
    "case": vars(Case("dp2")),
    "ranks": [
        {
            name: [["norm", "all-reduce", "world", 2, 1, 4, 4], ["pixels", "exchange", "world", 2, 1, 8 * rank, 8]]
            for name in ("counted", "planned")
        }
        for rank in range(2)
    ],
}


def test_a_byte_more_or_a_call_less_on_one_rank_is_told() -> None:
    assert not result_of(RANKS).reasons
    more, less = copy.deepcopy(RANKS), copy.deepcopy(RANKS)
    more["ranks"][1]["planned"][1][5] += 1
    assert result_of(more).reasons == [
        "dp2: pixels exchange in group world: counted 1 calls of 8 bytes in and 8 out, planned 1 calls of 9 bytes in and 8 out "
        "(ranks 1)"
    ]
    del less["ranks"][0]["counted"][0]
    assert len(result_of(less).reasons) == 1 and "(ranks 0)" in result_of(less).reasons[0]
    assert "DIFFERS" in as_text([result_of(less)]) and "DIFFERS" not in as_text([result_of(RANKS)])
    assert as_markdown([result_of(RANKS)]).count("\n") == 3


def test_traffic_goes_through_json_and_adds_up() -> None:
    traffic = Traffic.of(RANKS["ranks"][1]["counted"])
    assert Traffic.of(traffic.as_json()).as_json() == traffic.as_json()
    assert traffic.get(Key("pixels", "exchange", "world", 2)).payload == 8
    assert traffic.get(Key("pixels", "exchange", "world", 4)).payload == 0


def test_a_case_that_is_none_is_refused() -> None:
    for broken, word in (({"layout": "xx"}, "xx"), ({"preset": "most"}, "--preset"), ({"optimizer": "lion"}, "--optimizer")):
        with pytest.raises(InputError, match=word):
            Case.of({"layout": "dp2"} | broken)
    assert Case("tp2", optimizer="muon").words == "tp2 optimizer=muon"
    assert MODULE.endswith("ranks")


def test_recorded_counts_are_still_planned() -> None:
    """What real ranks of 17 layouts once sent, without starting them: see docs/benchmarks/communication.md."""
    recorded = json.loads((REPOSITORY / "docs" / "benchmarks" / "communication.json").read_text(encoding="utf-8"))["counted"]
    assert len(recorded) == 17 and max(Case.of(entry["case"]).ranks for entry in recorded) == 8
    for entry in recorded:
        case = Case.of(entry["case"])
        sizes = case.sizes
        shape = shape_of(case, case.ranks // (sizes.tensor * sizes.pipeline * sizes.context))
        planned = [step_traffic(run_config(case), case.ranks, shape, rank) for rank in range(case.ranks)]
        for row in entry["rows"]:
            key = Key(row["purpose"], row["kind"], row["group"], row["ranks"])
            assert Calls(**row["counted"]) in [traffic.get(key) for traffic in planned], (case.words, key)
        assert {key for traffic in planned for key, _ in traffic} == {Key(*list(row.values())[:4]) for row in entry["rows"]}


@pytest.mark.ranks
def test_the_trainer_sends_what_is_planned(run_ranks: RunRanks, tmp_path: Path) -> None:
    """In runs on real shards, with everything that a trainer does around a step."""
    write_data(tmp_path, 12)
    every: dict[str, Any] = {"logging__gradient_norms_every": 1, "logging__memory_every": 1, "guard__report_stragglers_every": 1}
    configs = []
    for name, sizes in (("dp2", {}), ("tp2", {"tensor": 2, "sequence_parallel": True})):
        changes: dict[str, Any] = {f"parallel__{field}": value for field, value in sizes.items()}
        config = run_on_shards(tmp_path, tmp_path / name, steps=2, guard__check_copies_every=1, **every, **changes)
        configs.append(save_run_config(config, tmp_path / f"{name}.yaml"))
    output = run_ranks("tests.moss_train.planning.communication.trainer_ranks", 2, *configs)
    assert output.count("kinds agree") == 2
