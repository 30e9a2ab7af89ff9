"""Decoding speed of this machine on a user's own clips."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from itertools import islice

import torch

from data_pipeline.inspect.entries import parts_of, read_entries, spread
from data_pipeline.loader.frames import decode_slots
from data_pipeline.packing.plan import DoesNotFit, PlanRules, plan_sample
from data_pipeline.shards.schema import sample_from_dict
from data_pipeline.text.tokenizer import Tokenizer
from model.errors import InputError
from moss_train.planning.data_load import CONVERTED_PIXELS_PER_CORE_SECOND, Speeds


def measure(folders: list[str], tokenizer: Tokenizer, rules: PlanRules, image_size: int, clips: int) -> Speeds:
    """Decode the wanted frames of some clips as the loader does, on one core, and share out the time.

    The share of converting is taken at its usual speed; what is left is decoding.

    Raises:
        InputError: the folders have no clip that can be decoded in this stage.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    decoded = converted = 0
    seconds = 0.0
    try:
        for read, wanted, spent in islice(_clips(folders, tokenizer, rules, image_size, clips), clips):
            decoded, converted, seconds = decoded + read, converted + wanted, seconds + spent
    finally:
        torch.set_num_threads(threads)
    if not decoded:
        raise InputError("--measure found no clip that can be decoded in this stage; leave it out or list a dataset with videos")
    converting = min(converted / CONVERTED_PIXELS_PER_CORE_SECOND, 0.9 * seconds)
    return Speeds(decoded / (seconds - converting), converted / converting, measured=True)


def _clips(folders: list[str], tokenizer: Tokenizer, rules: PlanRules, size: int, clips: int) -> Iterator[tuple[int, int, float]]:
    """(pixels decoded, pixels converted, processor seconds) of single clips, in turn from all folders."""
    for folder in folders:
        for part in spread(parts_of(folder), clips):
            for entry in islice(read_entries(part), -(-clips // len(folders))):
                try:
                    sample = sample_from_dict(json.loads(entry.text or b""))
                    plan = plan_sample(sample, tokenizer, rules, random.Random(0))
                    members = {name: content for name, content in entry.members.items() if isinstance(content, bytes)}
                    begin = time.process_time()
                    if not plan.slots or sample.media[plan.slots[0].media].type != "video":
                        continue
                    slots = [slot for slot in plan.slots if slot.media == plan.slots[0].media]
                    decode_slots(slots, sample.media, members, size, entry.key)
                    spent = time.process_time() - begin
                except (InputError, DoesNotFit, ValueError):
                    continue
                media = sample.media[slots[0].media]
                pixels = (media.width or 0) * (media.height or 0)
                yield (slots[-1].frame + 1) * pixels, len(slots) * pixels, spent
