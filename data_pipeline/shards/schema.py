"""Samples as plain JSON values, and the rules that a sample must keep."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping
from typing import Any

from data_pipeline.schema import KINDS, Media, Message, Sample
from data_pipeline.text.template import TEMPLATES, split_messages
from data_pipeline.text.tokenizer import IMAGE, VIDEO
from model.errors import InputError

MEDIA_TYPES = ("image", "video")
MARKERS = ("one", "per_frame", "per_event")

_SAMPLE_FIELDS = {f.name for f in dataclasses.fields(Sample)}
_MEDIA_FIELDS = {f.name for f in dataclasses.fields(Media)}
_TEXT_FIELDS = ("kind", "template", "dataset", "source", "license")
_NUMBER_FIELDS = ("fps", "rate", "duration")
_COUNT_FIELDS = ("min_frames", "max_frames", "width", "height", "num_frames")
_MARKER = re.compile(re.escape(IMAGE) + "|" + re.escape(VIDEO))


def sample_to_dict(sample: Sample) -> dict[str, Any]:
    """JSON values; fields that hold their default are left out."""
    out: dict[str, Any] = {"kind": sample.kind, "messages": [dataclasses.asdict(m) for m in sample.messages]}
    if sample.media:
        out["media"] = [_without_defaults(m) for m in sample.media]
    for name in ("template", "dataset", "source", "license", "dense", "meta"):
        value = getattr(sample, name)
        if value not in ("", None, {}) and not (name == "template" and value == "mllama"):
            out[name] = value
    return out


def sample_from_dict(values: Mapping[str, Any], where: str = "sample") -> Sample:
    """Build and check one sample.

    Args:
        where: what messages call it, such as `shard-000000.tar sample cat-12`.

    Raises:
        InputError: a field is unknown or missing, has the wrong type, or breaks a rule of `check_sample`.
    """
    _require(isinstance(values, Mapping), where, "is not a JSON object")
    unknown = sorted(set(values) - _SAMPLE_FIELDS)
    _require(not unknown, where, f"has unknown fields {', '.join(unknown)}; known are {', '.join(sorted(_SAMPLE_FIELDS))}")
    for name in ("kind", "messages"):
        _require(name in values, where, f"lacks the field {name}")
    for name in _TEXT_FIELDS:
        _require(isinstance(values.get(name, ""), str), where, f"field {name} is {values.get(name)!r}; it must be text")
    for name in ("messages", "media"):
        _require(isinstance(values.get(name, []), list), where, f"field {name} must be a list")
    _require(isinstance(values.get("meta", {}), Mapping), where, "field meta must be an object")
    sample = Sample(
        kind=values["kind"],
        messages=[_message(m, i, where) for i, m in enumerate(values["messages"])],
        media=[_media(m, i, where) for i, m in enumerate(values.get("media", []))],
        **{name: values[name] for name in ("template", "dataset", "source", "license", "dense", "meta") if name in values},
    )
    check_sample(sample, where)
    return sample


def check_sample(sample: Sample, where: str = "sample") -> None:
    """Check what a loader relies on: names, alternating roles, as many markers as media, times, dense shape.

    Raises:
        InputError: naming the sample, the field and what is allowed.
    """
    _require(sample.kind in KINDS, where, f"field kind is {sample.kind!r}; use one of {', '.join(KINDS)}")
    _require(sample.template in TEMPLATES, where, f"field template is {sample.template!r}; use one of {', '.join(TEMPLATES)}")
    files = [m.file for m in sample.media]
    different = len({file.lower() for file in files}) == len(files)  # webdataset reads endings in lower case
    _require(different, where, f"media files {', '.join(files)} must differ")
    for index, media in enumerate(sample.media):
        _check_media(media, f"{where} media[{index}]")
    if sample.kind == "dense":
        _check_dense(sample, where)
        return
    try:
        split_messages(sample.messages)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    markers = marker_types(sample)
    for kind, marker in (("image", IMAGE), ("video", VIDEO)):
        owed = sum(markers_of(m) for m in sample.media if m.type == kind)
        found = markers.count(kind)
        _require(found == owed, where, f"has {found} {marker} markers but its {kind} media call for {owed}")


def marker_types(sample: Sample) -> list[str]:
    """image or video for every marker of the text, in order."""
    return ["image" if found == IMAGE else "video" for m in sample.messages for found in _MARKER.findall(m.content)]


def markers_of(media: Media) -> int:
    """Markers that stand for this file."""
    return 1 if media.markers == "one" else len(media.frame_times or [])


def _message(value: Any, index: int, where: str) -> Message:
    ok = isinstance(value, Mapping) and set(value) == {"role", "content"} and all(isinstance(v, str) for v in value.values())
    _require(ok, where, f"messages[{index}] must be an object of two texts, role and content")
    _require(_is_unicode(value["content"]), where, f"messages[{index}] holds half of a surrogate pair, which is no Unicode text")
    return Message(**value)


def _is_unicode(text: str) -> bool:
    """JSON may hold half a surrogate pair, which no tokenizer takes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _media(value: Any, index: int, where: str) -> Media:
    where = f"{where} media[{index}]"
    _require(isinstance(value, Mapping), where, "is not a JSON object")
    unknown = sorted(set(value) - _MEDIA_FIELDS)
    _require(not unknown, where, f"has unknown fields {', '.join(unknown)}; known are {', '.join(sorted(_MEDIA_FIELDS))}")
    for name in ("type", "file"):
        _require(isinstance(value.get(name), str) and value[name], where, f"lacks the field {name}")
    for name in _NUMBER_FIELDS:
        number = value.get(name)
        ok = number is None or (_is_number(number) and number > 0)
        _require(ok, where, f"field {name} is {number!r}; it must be a positive number")
    for name in _COUNT_FIELDS:
        count = value.get(name)
        ok = count is None or (isinstance(count, int) and _is_number(count) and count > 0)
        _require(ok, where, f"field {name} is {count!r}; it must be a positive whole number")
    for name in ("source", "license"):
        _require(isinstance(value.get(name, ""), str), where, f"field {name} is {value.get(name)!r}; it must be text")
    times = value.get("frame_times")
    ok = times is None or (isinstance(times, list) and all(_is_number(t) for t in times))
    _require(ok, where, "field frame_times must be a list of seconds")
    return Media(**value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15  # nan is not


def _check_media(media: Media, where: str) -> None:
    _require(media.type in MEDIA_TYPES, where, f"field type is {media.type!r}; use one of {', '.join(MEDIA_TYPES)}")
    _require(media.markers in MARKERS, where, f"field markers is {media.markers!r}; use one of {', '.join(MARKERS)}")
    taken = media.file.lower().split(".")[-1] == "json" or media.file.startswith("__")  # the sample's own, and webdataset's
    sound = media.file.isprintable() and "/" not in media.file and not taken
    _require(sound, where, f"field file is {media.file!r}; it must be the ending of a shard member, such as 0.mp4")
    if media.markers == "one":
        return
    _require(media.type == "video", where, f"markers {media.markers!r} are for videos only")
    times = media.frame_times or []
    _require(bool(times), where, f"markers {media.markers!r} need frame_times")
    rising = times[0] >= 0 and all(a < b for a, b in itertools.pairwise(times))
    _require(rising, where, "field frame_times must rise from 0 or later")


def _check_dense(sample: Sample, where: str) -> None:
    _require(bool(sample.dense), where, "is of kind dense and needs the field dense")
    _require(len(sample.media) == 1 and sample.media[0].type == "video", where, "is of kind dense and needs one video")
    grids: Any = sample.dense  # from a file: anything
    square = isinstance(grids, list) and all(isinstance(g, list) and len(g) > 0 and len(g) == len(grids[0]) for g in grids)
    square = square and all(isinstance(row, list) and len(row) == len(grids[0]) for g in grids for row in g)
    _require(square, where, "field dense must be [frames][grid][grid] with one grid size")
    whole = all(isinstance(c, int) and not isinstance(c, bool) and abs(c) < 1 << 31 for g in grids for row in g for c in row)
    _require(whole, where, "field dense must hold whole numbers, the classes of patches")


def _require(condition: bool, where: str, text: str) -> None:
    if not condition:
        raise InputError(" ".join(f"{where} {text}".splitlines()))  # names of fields may hold anything


def _without_defaults(media: Media) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for field in dataclasses.fields(Media):
        value = getattr(media, field.name)
        if field.default is dataclasses.MISSING or value != field.default:
            out[field.name] = value
    return out
