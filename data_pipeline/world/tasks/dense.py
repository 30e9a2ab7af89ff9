"""Patch labels: colour and kind of every 8 x 8 patch, for the warm start of the vision tower."""

from __future__ import annotations

from data_pipeline.schema import Media, Message, Sample
from data_pipeline.world.render import patch_labels
from data_pipeline.world.scene import Clip


def dense_sample(clips: list[Clip], patch: int = 8) -> Sample:
    """Independent single frames as images with the class of every patch; the text is empty."""
    labels = [patch_labels(clip, patch)[0].tolist() for clip in clips]
    media = [Media(type="image", file=f"{i}.jpg") for i in range(len(clips))]
    return Sample(
        kind="dense",
        messages=[Message(role="user", content=""), Message(role="assistant", content="<|image|>" * len(clips))],
        media=media,
        template="mllama_pretrain",
        dense=labels,
    )
