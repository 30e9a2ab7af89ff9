"""OVO-Bench: questions about the past and the present of a stream, and forward ones, whose time is still to come.

Metrics, shares of 1 unless said; tasks are EPM, ASI, HLD (backward), STU, OJR, ATR, ACR, OCR, FPD (realtime), REC, SSR, CRR
(forward), each asked of the video up to its moment:

* `<TASK>.accuracy_official`: with options the true letter occurs in the reply; REC: all digits of the reply, joined, are the
  count; SSR and CRR: the reply is Y or N, or Yes or No occurs in it. `<TASK>.accuracy_strict`: one letter, one number, or yes or
  no as the first word.
* `backward`, `realtime`, `forward` `.accuracy_*`: means of their tasks. `total.accuracy_*`: mean of these three, as in the
  published table. `total_of_tasks.accuracy_*`: mean of the tasks, as the released script prints it.
* `<TASK>.push.accuracy`, of streams that are asked once, at the moments of the forward tasks. REC: the number said last is the
  count (silence: none). SSR: the step named last is the one that began last (before the first: silence). CRR: something has been
  said since it was asked, if and only if the evidence is there. `forward.push.accuracy`: mean of the three.
* `CRR.push.near`: the first word comes less than 2 s from the clue. `.spoke`: any came. `.delay`: seconds between the two.

Official formulas: `utils/OVOBenchScore.py` of github.com/JoeLeelyf/OVO-Bench, whose online class is empty. The measures of
streams follow how github.com/zengwang430521/OVO-Bench scores a model that speaks by itself; there a silent model errs at every
moment before the first step and at counts of none, here it is right.
"""

from __future__ import annotations

from inference.evaluation.suites.ovobench.importer import load
from inference.evaluation.suites.ovobench.scorer import NAME, aggregate, score
from inference.evaluation.suites.suite import Suite

SUITE = Suite(
    name=NAME,
    title="OVO-Bench",
    modes=("offline", "push"),
    main="total.accuracy_official",
    score=score,
    aggregate=aggregate,
    load=load,
    higher_is_better={"CRR.push.delay": False},
    about="Questions about past, present and future of a stream (arXiv 2501.05510)",
)
