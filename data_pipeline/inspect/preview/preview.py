"""From a source to the page's views."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from data_pipeline.inspect.entries import Entry
from data_pipeline.inspect.preview.choose import by_key, evenly
from data_pipeline.inspect.preview.packs import PackView, Segment, pack_views
from data_pipeline.inspect.preview.views import SampleView, frame_views, timeline, token_views
from data_pipeline.loader.frames import decode_slots
from data_pipeline.packing.batch import IGNORE_INDEX
from data_pipeline.packing.plan import DoesNotFit, PlanRules, SamplePlan, plan_sample
from data_pipeline.schema import Media, Sample
from data_pipeline.shards.media_info import fill_info
from data_pipeline.shards.schema import sample_from_dict
from data_pipeline.text.tokenizer import Tokenizer
from model.errors import InputError

THUMBNAIL, SMALL_THUMBNAIL, MANY_FRAMES = 168, 112, 64
"""Pixels of a thumbnail, and of each where a sample has many frames."""


@dataclass(frozen=True)
class PreviewSettings:
    """How samples are looked at."""

    rules: PlanRules
    tokenizer: Tokenizer
    image_size: int
    seed: int = 0
    """Of the frame jitter."""
    samples_per_pack: int | None = None


@dataclass
class Preview:
    """What the page shows."""

    source: str
    samples: list[SampleView] = field(default_factory=list)
    packs: list[PackView] = field(default_factory=list)


def preview(
    source: str,
    settings: PreviewSettings,
    *,
    samples: int = 8,
    keys: Sequence[str] = (),
    packed: int = 0,
    on_sample: Callable[[int, int], None] | None = None,
) -> Preview:
    """Plan, decode and arrange samples of a folder of shards or an annotation file.

    Args:
        samples: how many, evenly over the shards; `keys` are shown instead where given.
        packed: samples among which the packs of the page are formed; 0 shows none.

    Raises:
        InputError: the source is missing or damaged, or has no such key.
    """
    chosen = by_key(source, keys) if keys else evenly(source, samples)
    found = Preview(source)
    for number, entry in enumerate(chosen, start=1):
        found.samples.append(sample_view(entry, settings))
        if on_sample is not None:
            on_sample(number, len(chosen))
    if packed:
        found.packs = pack_views(_segments(evenly(source, packed), settings), settings.rules, settings.samples_per_pack)
    return found


def sample_view(entry: Entry, settings: PreviewSettings) -> SampleView:
    """One sample; where the loader would leave it out, the reason."""
    view = SampleView(entry.key, entry.where, [])
    try:
        sample = _read(entry)
        view.facts = _facts(sample, settings.rules)
        plan = _plan(entry.key, sample, settings)
        frames = _decode(plan, sample, entry, settings.image_size)
    except (InputError, DoesNotFit) as error:
        view.left_out = str(error)
        return view
    view.facts += _numbers(plan, settings.rules)
    side = SMALL_THUMBNAIL if plan.num_frames > MANY_FRAMES else THUMBNAIL
    view.frames = frame_views(plan, frames, [m.file for m in sample.media], side)
    view.tokens = token_views(plan, settings.tokenizer)
    if sample.kind == "realtime":
        view.columns = timeline(view.tokens)
    return view


def _read(entry: Entry) -> Sample:
    try:
        values = json.loads(entry.text or b"")
    except (ValueError, RecursionError) as error:
        raise InputError(f"its fields are not JSON: {error}") from None
    sample = sample_from_dict(values, "it")
    for media in sample.media:
        if media.file not in entry.members:
            raise InputError(f"it lacks the media {media.file}")
        fill_info(media, entry.members[media.file], media.file)
    return sample


def _plan(key: str, sample: Sample, settings: PreviewSettings) -> SamplePlan:
    rng = random.Random(f"{settings.seed}/{key}")
    return plan_sample(sample, settings.tokenizer, settings.rules, rng, "it")


def _decode(plan: SamplePlan, sample: Sample, entry: Entry, size: int) -> torch.Tensor:
    """uint8 [F, 3, size, size]"""
    if not plan.slots:
        return torch.empty(0, 3, size, size, dtype=torch.uint8)
    members = {name: c.read_bytes() if isinstance(c, Path) else c for name, c in entry.members.items()}
    return decode_slots(plan.slots, sample.media, members, size, "it")


def _segments(entries: Sequence[Entry], settings: PreviewSettings) -> list[Segment]:
    """Sizes of the samples that have a place in a pack."""
    segments = []
    for entry in entries:
        try:
            plan = _plan(entry.key, _read(entry), settings)
        except (InputError, DoesNotFit):
            continue
        segments.append(Segment(entry.key, plan.num_rows, plan.num_frames))
    return segments


def _facts(sample: Sample, rules: PlanRules) -> list[tuple[str, str]]:
    template = rules.template or sample.template
    forced = f" (the stage's; its own is {sample.template})" if template != sample.template else ""
    facts = [
        ("kind", sample.kind),
        ("dataset", sample.dataset or "–"),
        ("license", sample.license or "–"),
        ("source", sample.source or "–"),
        ("template", template + forced),
    ]
    return facts + [(media.file, _media(media)) for media in sample.media]


def _media(media: Media) -> str:
    size = f"{media.type} {media.width} x {media.height}"
    if media.type == "image":
        return size
    return f"{size}, {media.rate or 0:g} frames/s, {media.duration or 0:g} s, {media.num_frames} frames, markers {media.markers}"


def _numbers(plan: SamplePlan, rules: PlanRules) -> list[tuple[str, str]]:
    learned = int((plan.rows.labels != IGNORE_INDEX).sum())
    return [
        ("rows", f"{plan.num_rows} of {rules.sequence_length}"),
        ("frames", f"{plan.num_frames} of {rules.max_frames}"),
        ("learned", f"{learned} rows"),
    ]
