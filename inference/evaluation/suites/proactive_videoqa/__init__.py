"""ProactiveVideoQA: a question is asked once, and answers are due whenever the stream shows something for it.

Metrics, of the tasks WEB, EGO, TV and VAD (`WEB.pauc`) and of all together (`pauc`):

* `pauc`: mean over spans of the area under the judged score within the span (`pauc.py`), from 0 to 1, at omega 0.5; a span
  without a reply has 0.25. `pauc_0`, `pauc_1`: at omega 0 and 1. These need a judge.
* `pauc_words`: as `pauc`, but the score is twice the F1 of the words said so far and the true ones: a stand-in where there is no
  judge, not to be set beside published figures. `answered`: share of spans with any reply.
* `repetition`: replies that say what an earlier one said, case and punctuation apart. `out_of_span`: replies outside of all
  spans. `replies_per_stream`. `repetition_judged`: also those in which a judge finds nothing new.
* `reward`: mean over streams of 3 pauc - 3 repetition_judged - 2 out_of_span, the form of the reward of MMDuet2.

Official formula of PAUC: pauc/judge_llm_scores_openai.py of the benchmark, as open-compass/VLMEvalKit repeats it: verdicts are 1
to 3, and late replies that lose are left out. MMDuet2's reward has verdicts of 1 to 5; its weights are taken from a description
of its code, and neither that code nor the text of the paper was compared. A reply's time is that of its first token.
Figures depend on the judge and its wording, which is ours.
"""

from __future__ import annotations

from inference.evaluation.suites.proactive_videoqa.importer import load
from inference.evaluation.suites.proactive_videoqa.scorer import NAME, aggregate, score
from inference.evaluation.suites.suite import Suite

SUITE = Suite(
    name=NAME,
    title="ProactiveVideoQA",
    modes=("push",),
    main="pauc",
    score=score,
    aggregate=aggregate,
    load=load,
    needs_judge=True,
    higher_is_better={"*repetition": False, "*repetition_judged": False, "*out_of_span": False},
    about="Answering by itself whenever the stream shows something for a question (arXiv 2507.09313)",
)
