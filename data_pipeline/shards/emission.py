"""How fast timed dialogues speak: what a model that learns from them learns about its pace."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from data_pipeline.schema import Sample
from data_pipeline.shards.info import read_samples
from data_pipeline.text.labels import flatten_turns
from data_pipeline.text.realtime import slot_lengths
from data_pipeline.text.template import encode_turns
from data_pipeline.text.tokenizer import Tokenizer
from model.errors import InputError

MOST_SAMPLES = 256
"""Timed dialogues that are measured in each folder; their json alone, no media."""
MOST_SLOTS = 20000
"""In each folder no dialogue is begun behind so many: all ranks of a run wait for this."""
LOOKED_AT = 2048
"""Samples of a folder among which its timed dialogues are looked for."""
KEPT = 0.99
"""Share of the slots that the rate does not exceed: one dialogue that rushes sets no pace."""


def measure_emission(
    folders: Iterable[Path], tokenizer: Tokenizer, template: str | None = None, most_samples: int = MOST_SAMPLES
) -> dict[str, Any] | None:
    """The rate of the timed dialogues in some dataset folders.

    Args:
        folders: those that `moss data prepare` wrote; what cannot be read is passed over, training says what is wrong with it.
        template: forced on every sample; None leaves each its own.

    Returns:
        `tokens_per_frame`: tokens in a frame's slot, its silence included, which 99 in 100 slots do not exceed; `fps`: frames a
        second, from the median distance of two frames. None where there is no timed dialogue.
    """
    lengths: list[int] = []
    gaps: list[float] = []
    for folder in folders:
        before = len(lengths)
        with suppress(InputError, OSError, KeyError):
            first = itertools.islice(read_samples(folder), LOOKED_AT)
            for sample in itertools.islice((sample for _, sample in first if _is_timed(sample)), most_samples):
                if len(lengths) - before >= MOST_SLOTS:
                    break
                turns = encode_turns(sample.messages, tokenizer, template or sample.template)
                lengths += slot_lengths(flatten_turns(turns)[0], tokenizer)
                times = sample.media[0].frame_times or []
                gaps += [b - a for a, b in itertools.pairwise(times) if b > a]
    if not lengths or not gaps:
        return None
    kept = sorted(lengths)[math.ceil(KEPT * len(lengths)) - 1]
    return {"tokens_per_frame": max(1, kept), "fps": round(1 / statistics.median(gaps), 6)}


def _is_timed(sample: Sample) -> bool:
    """Whether every frame has a marker of its own and a time."""
    return sample.kind == "realtime" and len(sample.media) == 1 and sample.media[0].markers == "per_frame"
