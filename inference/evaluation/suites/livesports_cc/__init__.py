"""LiveSports-3K-CC: live commentary, judged against that of another model by nearness to the human one.

Metrics, of events; all need a judge, who sees both commentaries in both orders:

* `win_rate_official`: verdicts for ours of all, two for each event; a tie is no win. `win_rate`: a tie counts half.
* `orders_agree`: share of events on which both orders gave the same verdict: how far the judge is to be trusted.
* `spoke`: share of streams that said anything; who is silent loses.

Official formula: evaluation/livesports3kcc/llm_judge.py of github.com/showlab/livecc, where the other model is GPT-4o and so is
the judge, with another wording.
"""

from __future__ import annotations

from inference.evaluation.suites.livesports_cc.importer import load
from inference.evaluation.suites.livesports_cc.scorer import NAME, aggregate, score
from inference.evaluation.suites.suite import Suite

SUITE = Suite(
    name=NAME,
    title="LiveSports-3K-CC",
    modes=("push",),
    main="win_rate_official",
    score=score,
    aggregate=aggregate,
    load=load,
    needs_judge=True,
    about="Live commentary against another model's (arXiv 2504.16030)",
)
