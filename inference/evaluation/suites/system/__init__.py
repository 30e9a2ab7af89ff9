"""How a stream ran, whoever ran it: delays, accounting, barge-in, self-correction, emission, memory. From events alone.

Metrics, in seconds unless said:

* `frame_latency.{p50,p95,p99,max}`: from a frame's arrival to the step that fed it.
* `staleness.{p50,p95,max}`: at each token, arrival of the newest frame that had come less that of the newest one seen.
* `first_token.{p50,p95}` (TTFT-S): from a prompt to the first text of its turn.
* `after_frame.{p50,p95}`: from the arrival of the newest frame seen to the first text of an utterance that nobody asked for.
* `stall.max`: longest time between two tokens of an utterance.
* `real_time_factor`: busy seconds by stream seconds, where the session said so.
* `accounting.violations`: frames that were settled twice, never, or without having come.
* `frames.{submitted,processed,dropped,rejected}`, the last two also by reason (`frames.dropped.backlog`); `frames.pending_max`.
* `drift.{last,max}`: arrivals against frame number / fps.
* `speak.*`, `silence.*`: as in the suite world, where there is truth.
* `barge_in.{last_token,first_token}.p50`: from a prompt that cuts an answer to the old turn's last, the new turn's first token.
* `correction.share`, `.seconds.p50`: annotated changes whose new statement was made, and how long it took.
* `correction.contradicted`: share of the statements after a change that still say what is no longer true.
* `memory.slope`, `memory.peak`: bytes a minute over the stream's second half; bytes.
* `emission.{p50,p95,max,mean}`: tokens said between two frames. `emission.over_trained`: share of slots above training's.
"""

from __future__ import annotations

from inference.evaluation.suites.suite import Suite
from inference.evaluation.suites.system.aggregate import LOWER_IS_BETTER, aggregate
from inference.evaluation.suites.system.scorer import score

SUITE = Suite(
    name="system",
    title="Streams",
    modes=("push",),
    main="frame_latency.p50",
    score=score,
    aggregate=aggregate,
    higher_is_better=dict.fromkeys(LOWER_IS_BETTER, False),
    extra={"neutral": ("emission.p*", "emission.max", "emission.mean", "frames.submitted", "frames.processed", "speak.onset_*")},
    about="Delays, staleness, accounting, barge-in, self-correction, emission and memory of every stream",
)
