"""What a stage makes of a sample: the loader's own plan, without decoding."""

from __future__ import annotations

import random
from dataclasses import replace

from data_pipeline.inspect.lint.text_rules import teaches_nothing
from data_pipeline.packing.plan import DoesNotFit, PlanRules, SamplePlan, plan_sample
from data_pipeline.schema import Sample
from data_pipeline.text.tokenizer import Tokenizer
from model.errors import InputError

NO_LIMIT = 2**40
"""Rows."""


def stage_findings(sample: Sample, tokenizer: Tokenizer, rules: PlanRules) -> tuple[SamplePlan | None, list[tuple[str, str]]]:
    """The plan, and what the stage leaves out or cuts."""
    whole, found = _planned(sample, tokenizer, replace(rules, sequence_length=NO_LIMIT))
    if whole is None or (whole.num_rows <= rules.sequence_length and rules.truncation == "expanded"):
        return whole, found
    kept, found = _planned(sample, tokenizer, rules)
    if kept is not None and kept.num_rows < whole.num_rows:
        found.append(
            ("truncated", f"{kept.num_rows} of {whole.num_rows} rows and {kept.num_frames} of {whole.num_frames} frames")
        )
    return kept, found


def _planned(sample: Sample, tokenizer: Tokenizer, rules: PlanRules) -> tuple[SamplePlan | None, list[tuple[str, str]]]:
    try:
        return plan_sample(sample, tokenizer, rules, random.Random(0)), []
    except DoesNotFit as error:
        return None, [("no-learned-token" if teaches_nothing(sample) else "does-not-fit", str(error))]
    except InputError as error:
        return None, [("refused", str(error))]
