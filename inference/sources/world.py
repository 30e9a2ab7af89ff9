"""A clip of the synthetic world, with what its script says to it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import torch

from data_pipeline.media.resize import fit_frames
from data_pipeline.world.render import render
from data_pipeline.world.scene import eventful
from data_pipeline.world.tasks.realtime import draw_prompt
from inference.sources.source import Now, TimedFrame, slot_times
from model.errors import InputError


class WorldSource:
    """The eventful clip of a seed, a function of the seed alone; its prompt comes with its frame.

    Args:
        seed: as after `world:`.
        fps: frames a second that are shown; the world's frames stand for a second each.
        size: side of the model's square in pixels.

    Raises:
        InputError: the seed is not an integer of 0 or more.
    """

    live = False

    def __init__(self, seed: str, fps: float, size: int) -> None:
        if not seed.isascii() or not seed.isdigit():
            raise InputError(f"--source world:{seed} needs a seed behind the colon: an integer of 0 or more, such as world:7")
        self.name = f"world:{seed}"
        self._size, self._fps = size, fps
        self._clip = eventful(int(seed))
        prompt = draw_prompt(self._clip, share=1.0)
        self.prompts: Sequence[tuple[float, str]] = [] if prompt is None else [(prompt.frame / fps, prompt.text)]
        self.duration: float | None = self._clip.num_frames / fps
        self._closed = threading.Event()

    def frames(self, clock: Now) -> Iterator[TimedFrame]:
        pictures = fit_frames(torch.from_numpy(render(self._clip)), self._size)  # [T, 3, S, S]
        for t, frame in zip(slot_times(len(pictures), self._fps), pictures, strict=True):
            if self._closed.is_set():
                return
            yield TimedFrame(t, frame)

    def close(self) -> None:
        self._closed.set()
