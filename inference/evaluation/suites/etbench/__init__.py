"""E.T. Bench: events in time, but for its captioning tasks.

Metrics, from 0 to 1, each by the official and by a strict reading of replies; a task's figure is the mean over its sources:

* `rar`, `eca`, `rvq` `.accuracy_*`: the option. `referring.accuracy_*`: their mean.
* `tvg`, `epm` `.f1_*`: share of the thresholds 0.1, 0.3, 0.5 and 0.7 that the IoU of the first span reaches. `tal.f1_*`: mean
  over these of the F1 of all spans. `evs.f1_*`: F1 of covered seconds (official: of readable replies alone). `vhd.f1_*`: the
  moment lies in a true span. `grounding.f1_*`: mean of the five.
* `tem.recall_*`: as tvg, with the nearest of the true spans. `gvq.recall_*`: as tvg, and the option too. `complex.recall_*`:
  their mean.
* `<task>.read_*`: share of replies that could be read.

Official formulas: evaluation/compute_metrics.py of the data set PolyU-ChenLab/ETBench. It gives replies without a letter the
option of the most similar wording, by a sentence encoder; here they are wrong. Dense captioning (dvc, slc) is left out.
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
