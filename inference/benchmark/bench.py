"""What the parts of one run share: dimensions, sizes, device, clock, and the model in the form that a part asks for."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from inference.benchmark.meter import DeviceMeter
from inference.benchmark.models import MODELS, TINY, random_model
from inference.benchmark.roofline import Chip
from inference.benchmark.workload import Workload, clip_frames
from inference.cache.store import KVStore
from inference.engine import StepEngine
from inference.model.video_mllama import VideoMllama
from inference.vision.encoder import FrameEncoder
from inference.vision.mode import vision_mode
from model.config import VideoMllamaConfig


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What is measured, and where."""

    model: str
    """A name of `MODELS`, or a checkpoint folder."""
    workload: Workload
    device: torch.device
    dtype: torch.dtype
    seed: int = 0
    graphs: bool | None = None
    """Steps on static buffers, CUDA graphs on a GPU; None: on a GPU."""
    video: Path | None = None
    """The file that the first token from a file is timed on; None: one is made."""
    work_dir: Path | None = None
    """Where it is made; None: a temporary folder."""


class Bench:
    """Builds engines for the parts, one at a time: the next one's weights come when the last one's are gone.

    Args:
        setup: what is measured.
        chip: whose limits the numbers are held against.
        say: takes a line for the person who waits.
    """

    def __init__(self, setup: Setup, chip: Chip, say: Callable[[str], None]) -> None:
        self.setup, self.chip, self.say = setup, chip, say
        self.workload, self.device, self.dtype = setup.workload, setup.device, setup.dtype
        self.meter = DeviceMeter(setup.device)
        self._form: tuple[str, str] | None = None
        self._model: VideoMllama | None = None
        self._engine: StepEngine | None = None

    @property
    def config(self) -> VideoMllamaConfig:
        """Dimensions of the model."""
        if self.setup.model in MODELS:
            return MODELS[self.setup.model]
        from inference.model.folder import read_config

        return read_config(Path(self.setup.model), None)[0]

    def engine(self, recipe: str = "bf16", vision: str = "exact", *, rows: int, frames: int, **store: bool) -> StepEngine:
        """A fresh engine; the weights of the last one are taken over where they are of the same form.

        Args:
            recipe: how the decoder's weights are kept.
            vision: the tower's mode.
            rows: text positions that its sessions need together.
            frames: frames that they need together.
            store: `raw_keys`, `fp8_frames` of its `KVStore`.

        Raises:
            InputError: a form that is not there.
        """
        if self._form != (recipe, vision):
            self.release()
            self.say(f"building the model ({recipe}, {vision} vision)")
            begin = self.meter.now()
            self._model = self._build(recipe, vision)
            self.meter.sync()
            self.say(f"built in {self.meter.now() - begin:.1f} s")
            self._form = (recipe, vision)
        self._engine = None  # its pages and graphs go first
        self._collect()
        assert self._model is not None
        self._engine = engine_of(self._model, rows, frames, graphs=self.setup.graphs, **store)
        self.meter.reset_peak()
        return self._engine

    def small_engine(self, rows: int, frames: int) -> StepEngine:
        """A small model in fp32 on the same device, whose tokens must be exact."""
        model = random_model(TINY, self.device, torch.float32, seed=self.setup.seed + 1)
        # What it compares is the decoder: compiling and capturing a tower would take longer than the comparison.
        model.encoder = FrameEncoder(model.vision, compile_layers="off", graph_sizes=())
        return engine_of(model, rows, frames, graphs=self.setup.graphs)

    def release(self) -> None:
        """Let the model's memory go."""
        self._engine = self._model = self._form = None
        self._collect()

    def clip(self, count: int, seed: int = 0) -> torch.Tensor:
        """uint8 [count, 3, S, S] in the host's memory, page-locked where a GPU reads it."""
        frames = clip_frames(self.config, count, seed)
        return frames.pin_memory() if self.device.type == "cuda" else frames

    def _collect(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _build(self, recipe: str, vision: str) -> VideoMllama:
        mode = vision_mode(vision)
        if self.setup.model in MODELS:
            model = random_model(MODELS[self.setup.model], self.device, self.dtype, seed=self.setup.seed, recipe=recipe)
        else:
            from inference.model.load import load_model

            model = load_model(self.setup.model, self.device, self.dtype, recipe=recipe)
        if vision != "exact":
            model.encoder = FrameEncoder(model.vision, mode=mode)
        return model


def engine_of(
    model: VideoMllama,
    rows: int,
    frames: int,
    *,
    graphs: bool | None = None,
    raw_keys: bool = False,
    fp8_frames: bool = False,
) -> StepEngine:
    """An engine with pages for so many rows and frames; on a GPU, where graphs hold their addresses, for no more."""
    store = KVStore(
        model.config,
        model.device,
        model.dtype,
        positions=rows,
        frames=frames,
        growable=model.device.type != "cuda",
        raw_keys=raw_keys,
        fp8_frames=fp8_frames,
    )
    return StepEngine(model, store, graphs=graphs)
