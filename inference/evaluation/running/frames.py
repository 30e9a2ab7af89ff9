"""Frames of scenarios: decoded chunk by chunk, and encoded once for all that is asked about them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from data_pipeline.media.decode import open_video
from data_pipeline.media.image import load_image
from data_pipeline.media.resize import fit_frames
from data_pipeline.media.sampling import indices_at
from inference.engine import StepEngine
from inference.evaluation.schema import Scenario
from model.errors import InputError

CHUNK = 32
"""Frames that are encoded at a time."""
_SMALL = 256 * 256
"""Pixels of a frame up to which several frames are resized at once."""

Key = tuple[str, int]
"""A picture: file, and microseconds into it."""


def read_frames(scenario: Scenario, folder: Path, numbers: Iterable[int], size: int) -> Iterator[torch.Tensor]:
    """Frames of a scenario, uint8 [3, size, size] each, one after the other: no more than a few are held at once.

    Args:
        folder: what the scenario's paths are relative to.
        numbers: of the frames, increasing.
        size: side of the model's square in pixels.

    Raises:
        InputError: a file is missing, damaged, or shorter than the scenario says; the message names file and scenario.
    """
    if scenario.frames:
        for number in numbers:
            path = folder / scenario.frames[number]
            yield load_image(path, size, f"{path} of scenario {scenario.id}")
        return
    path = folder / scenario.video
    times = [scenario.begin + number / scenario.fps for number in numbers]
    with open_video(path, f"{path} of scenario {scenario.id}") as video:
        indices = indices_at(video.info, times, f"video {video.name}")
        if video.info.width * video.info.height > _SMALL:
            previous, fitted = None, torch.empty(0)
            for frame in video.frames(indices, times):
                if frame is not previous:
                    previous, fitted = frame, fit_frames(torch.from_numpy(frame)[None], size)[0]
                yield fitted
            return
        several: list[np.ndarray] = []
        for frame in video.frames(indices, times):
            several.append(frame)
            if len(several) == CHUNK:
                yield from fit_frames(torch.from_numpy(np.stack(several)), size)
                several = []
        if several:
            yield from fit_frames(torch.from_numpy(np.stack(several)), size)


class EncodedFrames:
    """Features of the frames of some scenarios; each picture is decoded and encoded once, whoever asks for it.

    Args:
        engine: whose tower encodes.
        folder: what the scenarios' paths are relative to.

    Attributes:
        encoded: pictures that went through the tower so far.
    """

    def __init__(self, engine: StepEngine, folder: Path) -> None:
        self.encoded = 0
        self._engine, self._folder = engine, folder
        self._features: dict[Key, torch.Tensor] = {}
        self._waiting: dict[Key, torch.Tensor] = {}
        """uint8 pixels that fill the next chunk."""

    def want(self, scenario: Scenario, numbers: Iterable[int]) -> None:
        """Decode what is not there yet, and encode it as soon as a chunk is full.

        Raises:
            InputError: as `read_frames`.
        """
        keys = {number: self._key(scenario, number) for number in sorted(set(numbers))}
        missing = [number for number, key in keys.items() if key not in self._features and key not in self._waiting]
        size = self._engine.model.config.vision.image_size
        for number, pixels in zip(missing, read_frames(scenario, self._folder, missing, size), strict=True):
            self._waiting[keys[number]] = pixels
            if len(self._waiting) == CHUNK:
                self.finish()

    def finish(self) -> None:
        """Encode the frames that wait for a full chunk."""
        if not self._waiting:
            return
        features = self._engine.encode(torch.stack(list(self._waiting.values())))  # [f, P, H]
        self._features.update(zip(self._waiting, features, strict=True))
        self.encoded += len(self._waiting)
        self._waiting = {}

    def get(self, scenario: Scenario, numbers: Sequence[int]) -> torch.Tensor:
        """[F, P, H] of frames that were wanted before."""
        keys = [self._key(scenario, number) for number in numbers]
        if any(key in self._waiting for key in keys):
            self.finish()
        return torch.stack([self._features[key] for key in keys])

    def _key(self, scenario: Scenario, number: int) -> Key:
        if scenario.frames:
            return str(self._folder / scenario.frames[number]), 0
        return str(self._folder / scenario.video), round(1e6 * (scenario.begin + number / scenario.fps))


def check_media(scenario: Scenario, folder: Path) -> None:
    """Whether the files of a scenario are there.

    Raises:
        InputError: one is not.
    """
    for name in scenario.frames or [scenario.video]:
        if not (folder / name).is_file():
            raise InputError(f"{folder / name} of scenario {scenario.id} does not exist; mend its path or leave the scenario out")
