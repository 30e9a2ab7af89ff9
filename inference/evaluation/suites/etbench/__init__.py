"""E.T. Bench: events in time.

Metrics, from 0 to 1, each by the official and by a strict reading of replies; a task's figure is the mean over its sources:

* `rar`, `eca`, `rvq` `.accuracy_*`: the option. `referring.accuracy_*`: their mean. The official script gives replies without a
  letter the option of the most similar wording, by a sentence encoder. Where that is not installed (package
  sentence-transformers with the files of all-MiniLM-L6-v2; nothing is fetched) such replies are wrong, and `_letters` stands in
  place of `_official`, for `gvq` too; `complex` is then strict alone.
* `tvg`, `epm` `.f1_*`: share of the thresholds 0.1, 0.3, 0.5 and 0.7 that the IoU of the first span reaches. `tal.f1_*`: mean
  over these of the F1 of all spans. `evs.f1_*`: F1 of covered seconds (official: of readable replies alone). `vhd.f1_*`: the
  moment lies in a true span. `grounding.f1_*`: mean of the five.
* `tem.recall_*`: as tvg, with the nearest of the true spans. `gvq.recall_*`: as tvg, and the option too. `complex.recall_*`:
  their mean.
* `dvc`, `slc` `.f1_*`: spans of captions, mean over the thresholds of the F1 of mean precision and mean recall.
  `.similarity_*`: of each caption with all true ones that its span meets (with random letters where it meets none), by the
  encoder; `.word_similarity_*`: cosine of counts of words in its place where the encoder is missing. Official ones are of
  readable replies alone. `captioning.*`: means of the two.
* `<task>.read_*`: share of replies that could be read.

Official formulas: evaluation/compute_metrics.py of the data set PolyU-ChenLab/ETBench, read in copies that others have published.
It joins captioning samples of one video and source, keeping the last; here each counts. Its BLEU, METEOR, ROUGE and CIDEr, which
are in none of its summaries, are left out.
"""

from __future__ import annotations

from inference.evaluation.suites.etbench.importer import load
from inference.evaluation.suites.etbench.scorer import NAME, aggregate, score
from inference.evaluation.suites.suite import Suite

SUITE = Suite(
    name=NAME,
    title="E.T. Bench",
    modes=("offline",),
    main="grounding.f1_official",
    score=score,
    aggregate=aggregate,
    load=load,
    about="Grounding events in time, referring to them, and both (arXiv 2409.18111)",
)
