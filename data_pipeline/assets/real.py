"""Samples and scenarios from the bundled real clips and stills."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from functools import cache
from importlib import resources
from math import ceil
from pathlib import Path
from typing import Any

from data_pipeline.schema import Media, Message, Sample

SILENCE = "<|silence|>"
FPS = 1.0
"""Frames a second at which the clips are looked at."""

RealSample = tuple[str, Sample, dict[str, bytes]]


@cache
def entries() -> tuple[dict[str, Any], ...]:
    """One entry per file: split, caption, questions and, for a clip, what is said at which second."""
    text = resources.files("data_pipeline.assets").joinpath("annotations.json").read_text(encoding="utf-8")
    return tuple(json.loads(text))


def media_bytes(file: str) -> bytes:
    """Content of a bundled file."""
    return resources.files("data_pipeline.assets").joinpath("media", file).read_bytes()


def num_seconds(entry: dict[str, Any]) -> int:
    """Frames of a clip at one a second."""
    return ceil(float(entry["seconds"]) * FPS - 1e-6)


def texts() -> list[str]:
    """Everything said about the real media, for a tokenizer."""
    found: list[str] = []
    for entry in entries():
        found += [entry["caption"], *(part for pair in entry["questions"] for part in pair), *entry.get("lines", {}).values()]
    return found


def real_samples(split: str) -> dict[str, list[RealSample]]:
    """Samples by dataset: `real_image`, `real_video` (captions and questions) and `real_rt` (timed lines)."""
    found: dict[str, list[RealSample]] = {"real_image": [], "real_video": [], "real_rt": []}
    for entry in entries():
        if entry["split"] != split:
            continue
        clip = entry["file"].endswith(".mp4")
        dataset = "real_video" if clip else "real_image"
        found[dataset] += [_caption(entry, clip, dataset), _chat(entry, clip, dataset)]
        if clip:
            found["real_rt"].append(_dialogue(entry))
    return found


def _finish(entry: dict[str, Any], sample: Sample, dataset: str, suffix: str) -> RealSample:
    sample.dataset, sample.source, sample.license = dataset, entry["source"], entry["license"]
    name = entry["file"].split(".")[0]
    return f"{name}-{suffix}", sample, {sample.media[0].file: media_bytes(entry["file"])}


def _media(entry: dict[str, Any], clip: bool) -> Media:
    if not clip:
        return Media(type="image", file="0.jpg")
    return Media(type="video", file="0.mp4", fps=FPS, min_frames=1, max_frames=num_seconds(entry))


def _caption(entry: dict[str, Any], clip: bool, dataset: str) -> RealSample:
    marker = "<|video|>" if clip else "<|image|>"
    messages = [Message(role="user", content=""), Message(role="assistant", content=marker + entry["caption"])]
    sample = Sample(kind="video" if clip else "image", messages=messages, media=[_media(entry, clip)], template="mllama_pretrain")
    return _finish(entry, sample, dataset, "caption")


def _chat(entry: dict[str, Any], clip: bool, dataset: str) -> RealSample:
    messages = []
    for turn, (question, answer) in enumerate(entry["questions"]):
        marker = ("<|video|>" if clip else "<|image|>") if turn == 0 else ""
        messages += [Message(role="user", content=marker + question), Message(role="assistant", content=answer)]
    sample = Sample(kind="video" if clip else "image", messages=messages, media=[_media(entry, clip)])
    return _finish(entry, sample, dataset, "chat")


def _dialogue(entry: dict[str, Any]) -> RealSample:
    seconds = range(num_seconds(entry))
    said = "".join(f"<|video|>{entry['lines'].get(str(second), '')}{SILENCE}" for second in seconds)
    messages = [Message(role="user", content=""), Message(role="assistant", content=SILENCE + said)]
    media = Media(type="video", file="0.mp4", markers="per_frame", frame_times=[second / FPS for second in seconds], fps=FPS)
    return _finish(entry, Sample(kind="realtime", messages=messages, media=[media]), "real_rt", "live")


def real_scenarios() -> Iterator[dict[str, Any]]:
    """Every clip as a stream, the ones seen in training too: `meta.split` says which is which."""
    for entry in entries():
        if "lines" not in entry:
            continue
        spans = [{"a": float(s), "b": float(s), "text": text, "kind": "event"} for s, text in entry["lines"].items()]
        yield {
            "id": f"real-{entry['file'].split('.')[0]}",
            "video": f"real_videos/{entry['file']}",
            "fps": FPS,
            "num_frames": num_seconds(entry),
            "spans": spans,
            "source": entry["source"],
            "license": entry["license"],
            "meta": {"split": entry["split"]},
        }


def write_real(out_dir: str | os.PathLike[str], split: str, overwrite: bool = False) -> dict[str, Any]:
    """Write `OUT/real_image`, `real_video`, `real_rt` shards of a split, and for `test` the streams of all clips.

    The streams are `OUT/real_scenarios.jsonl` with `OUT/real_videos/`.

    Raises:
        InputError: a folder exists already and `overwrite` is false.
    """
    from data_pipeline.shards import write_samples

    root = Path(out_dir)
    summary: dict[str, Any] = {}
    for name, samples in real_samples(split).items():
        if samples:
            summary[name] = write_samples(root / name, samples, overwrite=overwrite)
    if split == "test":
        videos = root / "real_videos"
        shutil.rmtree(videos, ignore_errors=True)
        videos.mkdir(parents=True)
        lines = list(real_scenarios())
        for values in lines:
            (root / values["video"]).write_bytes(media_bytes(Path(values["video"]).name))
        temporary = root / f".real_scenarios.{os.getpid()}.tmp"
        temporary.write_text("".join(json.dumps(v, ensure_ascii=False) + "\n" for v in lines), encoding="utf-8")
        os.replace(temporary, root / "real_scenarios.jsonl")
        summary["real_scenarios"] = {"scenarios": len(lines)}
    return summary
