"""Counts over the samples of a dataset folder, made shard by shard and added up."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from data_pipeline.schema import Sample
from data_pipeline.shards.distribution import Distribution
from data_pipeline.text.tokenizer import IMAGE, VIDEO

MOST_SOURCES = 10_000
"""Different sources counted by name; a folder of more counts the others together."""
OTHERS = "(others)"
DISTRIBUTIONS = ("clip_seconds", "clip_frames", "clip_bytes", "image_pixels", "text_characters", "media_per_sample")
_COUNTERS = ("kinds", "shapes", "media", "licenses", "sources")
_MARKER = re.compile(f"({re.escape(IMAGE)}|{re.escape(VIDEO)})")


class Tally:
    """What a summary says about samples.

    Attributes:
        samples: how many.
        kinds, shapes, media, licenses, sources: samples (media: files) by name; `shapes` are those of `shape`.
        seconds, frames: of all videos.
        media_bytes: of all media files.
        distributions: of each clip, image or sample.
    """

    def __init__(self) -> None:
        self.samples = 0
        self.kinds: Counter[str] = Counter()
        self.shapes: Counter[str] = Counter()
        self.media: Counter[str] = Counter()
        self.licenses: Counter[str] = Counter()
        self.sources: Counter[str] = Counter()
        self.seconds = 0.0
        self.frames = 0
        self.media_bytes = 0
        self.distributions = {name: Distribution() for name in DISTRIBUTIONS}

    def add(self, sample: Sample, sizes: Mapping[str, int]) -> None:
        """Count one sample.

        Args:
            sizes: bytes of each `media.file`.
        """
        self.samples += 1
        self.kinds[sample.kind] += 1
        self.shapes[shape(sample)] += 1
        self.licenses.update({m.license or sample.license for m in sample.media} or {sample.license})
        self._count_sources(Counter({sample.source: 1}))
        spread = self.distributions
        spread["text_characters"].add(sum(len(_MARKER.sub("", m.content)) for m in sample.messages))
        if sample.media:
            spread["media_per_sample"].add(len(sample.media))
        for media in sample.media:
            self.media[media.type] += 1
            self.media_bytes += sizes.get(media.file, 0)
            self.seconds += media.duration or 0.0
            self.frames += media.num_frames or 0
            if media.type == "video":
                spread["clip_seconds"].add(media.duration or 0.0)
                spread["clip_frames"].add(media.num_frames or 0)
                spread["clip_bytes"].add(sizes.get(media.file, 0))
            elif media.width and media.height:
                spread["image_pixels"].add(media.width * media.height)

    def merge(self, other: Tally) -> None:
        """Add what another one counted."""
        self.samples += other.samples
        for name in ("kinds", "shapes", "media", "licenses"):
            getattr(self, name).update(getattr(other, name))
        self._count_sources(other.sources)
        self.seconds += other.seconds
        self.frames += other.frames
        self.media_bytes += other.media_bytes
        for name, spread in self.distributions.items():
            spread.merge(other.distributions[name])

    def _count_sources(self, found: Mapping[str, int]) -> None:
        for source, count in found.items():
            known = source in self.sources or len(self.sources) < MOST_SOURCES
            self.sources[source if known else OTHERS] += count

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, all of them."""
        plain = {name: getattr(self, name) for name in ("samples", "seconds", "frames", "media_bytes")}
        counters = {name: dict(getattr(self, name)) for name in _COUNTERS}
        return {**plain, **counters, "distributions": {name: d.to_dict() for name, d in self.distributions.items()}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Tally:
        """The inverse of `to_dict`."""
        out = cls()
        for name in ("samples", "seconds", "frames", "media_bytes"):
            setattr(out, name, values[name])
        for name in _COUNTERS:
            getattr(out, name).update(values[name])
        out.distributions = {name: Distribution.from_dict(values["distributions"][name]) for name in DISTRIBUTIONS}
        return out

    def statistics(self) -> dict[str, Any]:
        """The part of a summary that describes sizes and lengths."""
        return {
            "frames": self.frames,
            "hours": round(self.seconds / 3600, 4),
            "shapes": dict(sorted(self.shapes.items())),
            **{name: _short(spread.summary()) for name, spread in self.distributions.items() if spread.count},
        }


def shape(sample: Sample) -> str:
    """What a sample is made of, finer than its kind.

    dense | text | image | multi_image | video | multi_video | interleaved (several media with text between them, or of both
    types) | realtime | event_captions
    """
    if sample.kind == "dense" or not sample.media:
        return "dense" if sample.kind == "dense" else "text"
    if any(m.markers == "per_event" for m in sample.media):
        return "event_captions"
    if sample.kind == "realtime" or any(m.markers == "per_frame" for m in sample.media):
        return "realtime"
    types = sorted({m.type for m in sample.media})
    if len(sample.media) == 1:
        return types[0]
    inside = "\0".join(m.content for m in sample.messages)  # a turn's end parts two markers as text does
    between = _MARKER.split(inside)[2:-1:2]
    return "interleaved" if len(types) > 1 or any(text.strip(" \t\n") for text in between) else f"multi_{types[0]}"


def _short(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in values.items()}
