"""OmniMMI: calling out at the right time, keeping silent when not meant, and answers about what has been seen so far.

Metrics:

* `PA.accuracy`: the first alert lies in the true span; `PA.precision`: share of the alerts that do, mean over streams; `PA.iou`:
  of the span from the first alert to the last with the true one. A stream without an alert has 0 in all three.
* `PT.accuracy`: nothing was said to talk that was not meant for the model.
* `SG`, `AP`, `MD`, `SI` `.accuracy`: a judge finds all answers of a video right; `.score`: its mean figure from 0 to 5. Of `SG`
  and `MD` `.turnK.right`: of the K-th question alone, counted from 0; `.turnK.so_far`: together with all before it.
* `mean_of_judged`: mean of these four accuracies, which the published table calls the average without P.

Official formulas: `evaluations/evaluate.py` of github.com/OmniMMI/OmniMMI; its judge is a GPT-4o with another wording than ours.
"""

from __future__ import annotations

from inference.evaluation.suites.omnimmi.importer import load
from inference.evaluation.suites.omnimmi.scorer import NAME, aggregate, score
from inference.evaluation.suites.suite import Suite

SUITE = Suite(
    name=NAME,
    title="OmniMMI",
    modes=("push", "offline"),
    main="PA.accuracy",
    score=score,
    aggregate=aggregate,
    load=load,
    needs_judge=True,
    about="Alerts, silence and answers in streams (arXiv 2503.22952)",
)
