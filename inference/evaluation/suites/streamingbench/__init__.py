"""StreamingBench: questions with options at moments of a stream, sequential ones, and telling when the moment has come.

Metrics, all shares of 1 unless said:

* `<task>.accuracy_official`: first character of the reply is the letter. `<task>.accuracy_strict`: `parsing.strict_choice`.
* `realtime`, `omni`, `contextual`, `overall` `.accuracy_official` and `.accuracy_strict`: right ones of all asked; of the
  proactive task the polled moment counts.
* `proactive_output.poll.time_accuracy_*`: the first yes comes at most 2 s before or behind the true moment; official takes a
  "yes" anywhere in the reply, strict as its first word. `.answer_accuracy_*`: and what is said then holds the true text; strict
  as whole words. No yes is wrong.
* `proactive_output.push.*`: the same of a stream that is told once and speaks when it wants: the first word's moment counts.
  `.spoke`: it spoke at all; `.onset_error`: seconds between its first word and the true moment, of those that did.

Official formulas: `src/data/count.py`, `src/benchmark/StreamingBenchProactive.py` and `StreamingBenchSQA.py` of
github.com/THUNLP-MT/StreamingBench. Where that code leaves out questions without a reply they are wrong here. Asking ends at a
first word yes; what an official reading of a longer reply would have ended earlier counts for its moment and has no text.
"""

from __future__ import annotations

from inference.evaluation.suites.streamingbench.importer import load
from inference.evaluation.suites.streamingbench.scorer import NAME, aggregate, score
from inference.evaluation.suites.suite import Suite

SUITE = Suite(
    name=NAME,
    title="StreamingBench",
    modes=("offline", "poll", "push"),
    main="overall.accuracy_official",
    score=score,
    aggregate=aggregate,
    load=load,
    higher_is_better={"proactive_output.push.onset_error": False},
    about="Questions at moments of a stream, with what was asked before, and when to speak (arXiv 2411.03628)",
)
