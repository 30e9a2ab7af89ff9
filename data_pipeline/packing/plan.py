"""From a stored sample to its rows and the frames it needs, without decoding anything."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from data_pipeline.media.sampling import (
    VideoInfo,
    clock_frames,
    event_counts,
    indices_at,
    sample_count,
    sample_indices,
    sample_times,
)
from data_pipeline.packing.batch import IGNORE_INDEX
from data_pipeline.schema import Media, Sample
from data_pipeline.shards.media_info import video_info
from data_pipeline.shards.schema import marker_types
from data_pipeline.text.labels import Rows, expand_markers, flatten_turns, token_classes
from data_pipeline.text.realtime import swap_frames, unlabel_end_of_turn
from data_pipeline.text.template import Turn, encode_turns, truncate_turns
from data_pipeline.text.tokenizer import Tokenizer
from model.errors import InputError


class DoesNotFit(Exception):
    """The sample is sound but has no place in a pack of this stage."""


@dataclass(frozen=True)
class PlanRules:
    """What a stage asks of every sample."""

    template: str | None
    sequence_length: int
    max_frames: int
    """Frames of a pack."""
    fps: float
    video_min_frames: int
    video_max_frames: int
    jitter: float
    label_eot_realtime: bool
    truncation: str = "expanded"
    """expanded: a sample is cut to `sequence_length`, every frame counted. reference: to `cutoff_length`, every marker counted as
    one token, however many frames it stands for."""

    def __post_init__(self) -> None:
        if self.truncation == "reference" and self.cutoff_length < 1:
            raise InputError(
                f"stage.truncation=reference keeps room for a pack's frames: stage.sequence_length ({self.sequence_length}) "
                f"must be above stage.max_frames_per_pack ({self.max_frames})"
            )

    @property
    def cutoff_length(self) -> int:
        """Tokens of a sample before its markers are expanded: what the reference calls cutoff_len.

        Expanding adds fewer rows than a pack has frames, so what is cut to this always fits.
        """
        return self.sequence_length - self.max_frames


class Slot(NamedTuple):
    """One frame that is wanted."""

    media: int
    """Index into the sample's media."""
    frame: int
    """Number within its file; 0 for an image."""
    time: float
    """Seconds from the file's start; decides in a file with a varying rate."""


@dataclass
class SamplePlan:
    """One sample, ready to be packed."""

    rows: Rows
    classes: npt.NDArray[np.int8]
    """[T]"""
    slots: list[Slot]
    """[F] in the order of the text."""
    dense: npt.NDArray[np.int64] | None = None
    """[F, grid, grid]"""

    @property
    def num_rows(self) -> int:
        return len(self.rows.input_ids)

    @property
    def num_frames(self) -> int:
        return len(self.slots)


def plan_sample(sample: Sample, tokenizer: Tokenizer, rules: PlanRules, rng: random.Random, where: str = "sample") -> SamplePlan:
    """Tokens, labels and wanted frames of one sample.

    Args:
        rng: source of the frame jitter, seeded for this sample.

    Raises:
        InputError: the sample contradicts itself or its media.
        DoesNotFit: too many frames for a pack, or nothing to learn is left of it.
    """
    if sample.kind == "dense":
        return _plan_dense(sample, tokenizer, rules, where)
    markers = _frames_by_marker(sample, rules, where)
    turns = encode_turns(sample.messages, tokenizer, rules.template or sample.template)
    turns, markers = _truncate(turns, markers, tokenizer, rules)
    frames = sum(len(m) for m in markers)
    if frames > rules.max_frames:
        raise DoesNotFit(f"{frames} frames are more than the {rules.max_frames} of a pack (stage.max_frames_per_pack)")
    ids, labels = flatten_turns(turns)
    if sample.kind == "realtime":
        swap_frames(ids, labels, tokenizer, rng, rules.jitter)
        if not rules.label_eot_realtime:
            unlabel_end_of_turn(labels, tokenizer)
    rows = expand_markers(ids, labels, [len(m) for m in markers], tokenizer)
    if (rows.labels == IGNORE_INDEX).all():
        raise DoesNotFit(f"no learned token is left within {rules.sequence_length} rows (stage.sequence_length)")
    classes = token_classes(rows, tokenizer, realtime=sample.kind == "realtime")
    return SamplePlan(rows, classes, [slot for m in markers for slot in m])


def _frames_by_marker(sample: Sample, rules: PlanRules, where: str) -> list[list[Slot]]:
    """For every marker in text order, the frames that it stands for.

    Images and videos are each consumed in the order of the media list.
    """
    by_type: dict[str, list[list[Slot]]] = {"image": [], "video": []}
    for index, media in enumerate(sample.media):
        if media.type == "image":
            by_type["image"].append([Slot(index, 0, 0.0)])
        else:
            by_type["video"] += _video_slots(index, media, rules, sample.kind, f"{where} media {media.file}")
    images, videos = iter(by_type["image"]), iter(by_type["video"])
    return [next(images if kind == "image" else videos) for kind in marker_types(sample)]


def _video_slots(index: int, media: Media, rules: PlanRules, kind: str, where: str) -> list[list[Slot]]:
    """Frames of a video, one list for each of its markers."""
    info = video_info(media, where)
    if media.markers == "per_frame":
        times = media.frame_times or []
        return [[Slot(index, i, t)] for i, t in zip(indices_at(info, times, where), times, strict=True)]
    if media.markers == "per_event":  # times bind the frames to the text: never thinned
        frames = [Slot(index, i, t) for i, t in zip(*clock_frames(info, media.fps or rules.fps, where), strict=True)]
        counts = event_counts([s.time for s in frames], media.frame_times or [], where)
        return [frames[a:b] for a, b in itertools.pairwise(np.cumsum([0, *counts]))]
    most = media.max_frames or rules.video_max_frames
    if kind != "realtime":
        most = min(most, rules.max_frames)  # a clip that is only watched may be sampled more thinly
    least = min(media.min_frames or rules.video_min_frames, most)
    return [_sampled(index, info, media.fps or min(rules.fps, info.fps), least, most, where)]


def _sampled(index: int, info: VideoInfo, fps: float, least: int, most: int, where: str) -> list[Slot]:
    indices = sample_indices(info, fps, least, most, where)
    times = sample_times(info, indices, fps, sample_count(info, fps, least, most)[1])
    return [Slot(index, i, t) for i, t in zip(indices, times, strict=True)]


def _truncate(
    turns: list[Turn], markers: list[list[Slot]], tokenizer: Tokenizer, rules: PlanRules
) -> tuple[list[Turn], list[list[Slot]]]:
    """Cut to the length that the rules allow, and keep the frames of the markers that are left."""
    extra = sum(len(m) for m in markers) - len(markers)
    limit = rules.cutoff_length if rules.truncation == "reference" else rules.sequence_length - extra
    if sum(len(t.source) + len(t.target) for t in turns) <= limit:
        return turns, markers
    if limit < 1:
        raise DoesNotFit(
            f"{extra + len(markers)} frames leave no room for text in {rules.sequence_length} rows (stage.sequence_length)"
        )
    kept = truncate_turns(turns, limit)
    remaining: list[list[Slot]] = []
    position = 0
    empty = Turn([], [])
    for index, turn in enumerate(turns):
        short = kept[index] if index < len(kept) else empty
        for full, part in ((turn.source, short.source), (turn.target, short.target)):
            here = _count_markers(part, tokenizer)
            remaining += markers[position : position + here]
            position += _count_markers(full, tokenizer)
    return kept, remaining


def _count_markers(ids: Sequence[int], tokenizer: Tokenizer) -> int:
    return sum(i in (tokenizer.video_id, tokenizer.image_id) for i in ids)


def _plan_dense(sample: Sample, tokenizer: Tokenizer, rules: PlanRules, where: str) -> SamplePlan:
    """Frames with patch classes; the text is one row of padding."""
    media = sample.media[0]
    info = video_info(media, f"{where} media {media.file}")
    labels = np.asarray(sample.dense, dtype=np.int64)
    if media.frame_times:
        times = media.frame_times
        slots = [Slot(0, i, t) for i, t in zip(indices_at(info, times, where), times, strict=True)]
    else:
        slots = _sampled(0, info, media.fps or info.fps, media.min_frames or 1, media.max_frames or info.num_frames, where)
    if len(slots) != len(labels):
        raise InputError(f"{where} has dense labels of {len(labels)} frames but {len(slots)} frames are sampled")
    if len(slots) > rules.max_frames:
        raise DoesNotFit(f"{len(slots)} frames are more than the {rules.max_frames} of a pack (stage.max_frames_per_pack)")
    row = np.asarray([tokenizer.pad_id], dtype=np.int64)
    rows = Rows(row, np.asarray([IGNORE_INDEX], dtype=np.int64), np.zeros(len(slots), dtype=np.int64))
    return SamplePlan(rows, np.zeros(1, dtype=np.int8), slots, labels)
