"""Patch labels: colour and kind of every 8 x 8 patch, for the warm start of the vision tower."""

from __future__ import annotations

from data_pipeline.schema import Media, Message, Sample
from data_pipeline.world.render import patch_labels
from data_pipeline.world.scene import Clip


def dense_sample(clips: list[Clip], patch: int = 8) -> Sample:
    """Independent single frames, stored behind each other in one file, with the class of every patch; no text."""
    return Sample(
        kind="dense",
        messages=[Message(role="user", content=""), Message(role="assistant", content="<|video|>")],
        media=[Media(type="video", file="0.mp4", fps=1.0, min_frames=1, max_frames=len(clips))],
        template="mllama_pretrain",
        dense=[patch_labels(clip, patch)[0].tolist() for clip in clips],
    )
