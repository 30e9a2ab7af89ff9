"""What `moss bench scaling` takes of its time: which cases begin, and what is told of one that is cut off."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import time
from pathlib import Path

import pytest

from moss_train.bench.scaling.cases import Options, make_cases
from moss_train.bench.scaling.run import START_SHARE, TIME_UP, Scaling
from moss_train.bench.scaling.stacks import SHARE, stack_file
from moss_train.bench.scaling.worker import BESIDE_SECONDS, BUILD_SECONDS, SECONDS_TO_TELL, expected_seconds, seconds_until_stacks

OPTIONS = Options(
    model="tiny", gpus=(2,), precision="fp32", optimizer="adamw", rows=96, frames=8, kinds=("pt2",), limit_seconds=11.0
)
STACK = "Current thread 0x01 (most recent call first):\n  File collective.py, line 7 in wait\n"


def test_a_case_that_the_time_cuts_off_is_told_with_its_seconds_and_where_it_stood(tmp_path: Path) -> None:
    """It read as one that was never begun."""
    (case,), _ = make_cases(OPTIONS)
    lines, said = tmp_path / "lines", list[str]()
    lines.write_text(json.dumps({"begin": case.name}) + "\n")
    stack_file(lines, 1).write_text(STACK)
    scaling = Scaling(OPTIONS, "cpu", lambda results: None, said.append)  # a second, behind what it keeps for the end
    with (tmp_path / "output").open("w+") as output, subprocess.Popen(["sleep", "60"], stdout=output) as process:
        try:
            settled, again = scaling._watch(process, lines, [case], output)
        finally:
            process.kill()
    assert settled == {case.name} and not again and not scaling.results["cases"]
    (cut,) = scaling.results["left_out"]
    assert cut["name"] == case.name and re.fullmatch(TIME_UP + r" \d s after its start", cut["reason"])
    assert cut["traceback"] == ["rank 1:", "  File collective.py, line 7 in wait"] and cut["reason"] in said[-1]


def test_stacks_are_written_before_a_case_is_ended() -> None:
    assert seconds_until_stacks({"case_seconds": 90.0, "ends": None}) == SHARE * 90.0
    assert seconds_until_stacks({"case_seconds": 90.0, "ends": time.time() + 500.0}) == SHARE * 90.0
    left = seconds_until_stacks({"case_seconds": 90.0, "ends": time.time() + 20.0})
    assert left == pytest.approx(20.0 - SECONDS_TO_TELL, abs=1.0)
    assert seconds_until_stacks({"case_seconds": 90.0, "ends": time.time() - 20.0}) > 0, "what faulthandler takes"


def test_a_case_is_expected_to_take_its_own_warm_up_and_profile() -> None:
    (case,), _ = make_cases(OPTIONS)
    job = {"warmup": 2, "steps": 3, "profile": True}
    packs = sum(map(len, case.frames))
    assert expected_seconds(job, case, 0.0, has=False) == 0.0, "nothing is known yet"
    assert expected_seconds(job, case, 0.5, has=False) == 6 * packs * 0.5 + BUILD_SECONDS
    assert expected_seconds(job, case, 0.5, has=True) == 5 * packs * 0.5 + BESIDE_SECONDS
    alone = dataclasses.replace(case, ranks=1)
    assert expected_seconds(job, alone, 0.5, has=True) == 4 * packs * 0.5 + BESIDE_SECONDS


def test_the_first_number_of_gpus_has_time_to_compile() -> None:
    scaling = Scaling(dataclasses.replace(OPTIONS, limit_seconds=310.0), "cpu", lambda results: None, lambda line: None)
    first, later = START_SHARE
    until = scaling._share(3, 9, [first, later])
    assert until is not None and until - time.time() == pytest.approx(first + (300.0 - first - later) / 4, abs=1.0)
