"""From a stored sample to its rows and the frames it needs, without decoding anything."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_pipeline.media.sampling import event_counts, indices_at, sample_indices
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


@dataclass
class SamplePlan:
    """One sample, ready to be packed."""

    rows: Rows
    classes: npt.NDArray[np.int8]
    """[T]"""
    slots: list[tuple[int, int]]
    """[F] (media, frame number within its file) of every frame in the order of the text."""
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
    return SamplePlan(rows, token_classes(rows, tokenizer), [slot for m in markers for slot in m])


def _frames_by_marker(sample: Sample, rules: PlanRules, where: str) -> list[list[tuple[int, int]]]:
    """For every marker in text order, the frames that it stands for.

    Images and videos are each consumed in the order of the media list.
    """
    by_type: dict[str, list[list[tuple[int, int]]]] = {"image": [], "video": []}
    for index, media in enumerate(sample.media):
        if media.type == "image":
            by_type["image"].append([(index, 0)])
        else:
            groups = _video_frames(media, rules, sample.kind, f"{where} media {media.file}")
            by_type["video"] += [[(index, frame) for frame in group] for group in groups]
    images, videos = iter(by_type["image"]), iter(by_type["video"])
    return [next(images if kind == "image" else videos) for kind in marker_types(sample)]


def _video_frames(media: Media, rules: PlanRules, kind: str, where: str) -> list[list[int]]:
    """Frame numbers, one list for each marker of the video."""
    info = video_info(media, where)
    if media.markers == "per_frame":
        return [[i] for i in indices_at(info, media.frame_times or [], where)]
    most = media.max_frames or rules.video_max_frames
    if kind != "realtime":
        most = min(most, rules.max_frames)  # a clip that is only watched may be sampled more thinly
    least = min(media.min_frames or rules.video_min_frames, most)
    indices = sample_indices(info, media.fps or min(rules.fps, info.fps), least, most, where)
    if media.markers == "one":
        return [indices]
    counts = event_counts([i / info.fps for i in indices], media.frame_times or [], where)
    bounds = np.cumsum([0, *counts])
    return [indices[a:b] for a, b in itertools.pairwise(bounds)]


def _truncate(
    turns: list[Turn], markers: list[list[tuple[int, int]]], tokenizer: Tokenizer, rules: PlanRules
) -> tuple[list[Turn], list[list[tuple[int, int]]]]:
    """Cut to the sequence length, and keep the frames of the markers that are left."""
    extra = sum(len(m) for m in markers) - len(markers)
    limit = rules.sequence_length - extra
    if sum(len(t.source) + len(t.target) for t in turns) <= limit:
        return turns, markers
    if limit < 1:
        raise DoesNotFit(
            f"{extra + len(markers)} frames leave no room for text in {rules.sequence_length} rows (stage.sequence_length)"
        )
    kept = truncate_turns(turns, limit)
    remaining: list[list[tuple[int, int]]] = []
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
        indices = indices_at(info, media.frame_times, where)
    else:
        fps = media.fps or info.fps
        indices = sample_indices(info, fps, media.min_frames or 1, media.max_frames or info.num_frames, where)
    if len(indices) != len(labels):
        raise InputError(f"{where} has dense labels of {len(labels)} frames but {len(indices)} frames are sampled")
    if len(indices) > rules.max_frames:
        raise DoesNotFit(f"{len(indices)} frames are more than the {rules.max_frames} of a pack (stage.max_frames_per_pack)")
    row = np.asarray([tokenizer.pad_id], dtype=np.int64)
    rows = Rows(row, np.asarray([IGNORE_INDEX], dtype=np.int64), np.zeros(len(indices), dtype=np.int64))
    return SamplePlan(rows, np.zeros(1, dtype=np.int8), [(0, i) for i in indices], labels)
