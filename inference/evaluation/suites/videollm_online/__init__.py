"""VideoLLM-online's metrics of narrated streams, under teacher forcing (mode `teacher`).

Each is the mean over turns of a stream, then over streams:

* `lm_ppl`: exp of the mean cross-entropy of a text's tokens. `lm_correctness`: tokens before the first wrong one, of all.
* `time_diff`, seconds: how far from the right frame the model would have spoken, early or late.
* `fluency`: share of the tokens and frames of a turn up to the first mistake.
* `time_diff_0725`, `fluency_0725`: the same where it speaks as soon as silence is less likely than 0.725, the demo's threshold.
* `failed`: share of the streams that could not be run to their end; they are in no other mean.

Official formulas: `stream_evaluate` in models/modeling_live.py of github.com/showlab/videollm-online (commit 4ea416c), division
by the frame rate in data/ego4d/narration.py. Two things differ, so that published figures are not to be put beside these:

* There three more tokens count as a text's own (models/tokenization_live.py): the two of the speaker's name and its colon, which
  are easy, and the closing one. Here the first token of the text stands for the choice to speak as well.
* A stream of a single text has no frame at which speaking is judged; there it counts as 0 s and fluency 1, here it is left out.
"""

from __future__ import annotations

from inference.evaluation.suites.suite import Suite
from inference.evaluation.suites.videollm_online.importer import load
from inference.evaluation.suites.videollm_online.scorer import NAME, aggregate, score

SUITE = Suite(
    name=NAME,
    title="VideoLLM-online",
    modes=("teacher",),
    main="fluency",
    score=score,
    aggregate=aggregate,
    load=load,
    higher_is_better={"failed": False, "lm_ppl": False, "time_diff*": False},
    about="Narration of streams under teacher forcing: when and what (arXiv 2406.11816)",
)
