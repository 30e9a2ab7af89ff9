"""SVBench: chains of questions along a video, each leaning on the ones before, judged by a language model.

Metrics, means of figures from 0 to 10 (the published table has them times ten); all need a judge:

* `single.accuracy`: each answer by itself.
* `chain.SA`, `.CC`, `.LC`, `.TU`, `.IC`, `.OS`: of the questions of one scene, judged together: semantic accuracy, contextual
  coherence, logical consistency, temporal understanding (of those where time plays a part), informational completeness, overall.
* `streaming.*`: the same of the questions that linkages join over the whole video.

Official code: evaluation/eval_{SingleQA,chainQA,ConQA}_gpt4_gpt4o.py of github.com/yzy-bupt/SVBench, with another wording. It
reads a temporal figure of -1 as 1; here it is left out, as its own instruction has it.
"""

from __future__ import annotations

from inference.evaluation.suites.suite import Suite
from inference.evaluation.suites.svbench.importer import load
from inference.evaluation.suites.svbench.scorer import NAME, aggregate, score

SUITE = Suite(
    name=NAME,
    title="SVBench",
    modes=("offline",),
    main="chain.OS",
    score=score,
    aggregate=aggregate,
    load=load,
    needs_judge=True,
    about="Dialogues along streams (arXiv 2502.10810)",
)
