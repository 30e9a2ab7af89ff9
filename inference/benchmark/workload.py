"""How much of everything is measured: the sizes of the issue's table, and small ones for a CPU."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from model.config import VideoMllamaConfig


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Sizes of a run."""

    frames: int = 256
    """Of one clip."""
    text_rows: int = 64
    """Of one prompt, image tokens apart."""
    runs: int = 3
    """Of whole answers."""
    new_tokens: int = 256
    """End to end."""
    decode_tokens: int = 512
    legacy_runs: int = 2
    legacy_tokens: int = 946
    """What the published figures imply."""
    events: int = 200
    """New frames, and prompts, whose first tokens are timed one by one."""
    prompt_rows: int = 24
    """Of a question in the middle of a stream, headers included."""
    jitter_seconds: float = 12.0
    jitter_fps: float = 4.0
    sessions: int = 16
    sessions_seconds: float = 12.0
    sessions_fps: float = 1.0
    window_frames: int = 60
    """A minute at one frame a second."""
    sessions_rows: int = 2000
    """Text that each session begins with."""
    stream_frames: int = 3600
    """Of the long stream: an hour."""
    stream_rows: int = 2048
    """Text rows that the long stream keeps, and one session in the jitter's measurement."""
    position_limit: int = 4096
    """Of the long stream: positions are numbered anew below it."""
    correct_frames: int = 8
    correct_rows: int = 48
    correct_tokens: int = 64
    clip_seconds: float = 97.56
    clip_width: int = 1920
    clip_height: int = 1080
    peer_grid: tuple[int, int, int] = (128, 40, 72)
    """Pairs of frames, patches down, patches across, of the side-by-side model: 92,160 visual tokens."""
    peer_tokens: int = 256
    peer_runs: int = 1


WORKLOADS = {
    "full": Workload(),
    "small": Workload(
        frames=6,
        text_rows=10,
        runs=2,
        new_tokens=6,
        decode_tokens=8,
        legacy_runs=2,
        legacy_tokens=12,
        events=4,
        prompt_rows=6,
        jitter_seconds=0.6,
        jitter_fps=8.0,
        sessions=3,
        sessions_seconds=0.6,
        sessions_fps=5.0,
        window_frames=4,
        sessions_rows=20,
        stream_frames=80,
        stream_rows=16,
        position_limit=112,
        correct_frames=3,
        correct_rows=14,
        correct_tokens=12,
        clip_seconds=2.0,
        clip_width=96,
        clip_height=54,
        peer_grid=(2, 4, 4),
        peer_tokens=4,
    ),
}


def clip_frames(config: VideoMllamaConfig, count: int, seed: int = 0, aspect: float = 16 / 9) -> torch.Tensor:
    """Frames of a moving pattern as the decoder would hand them over: the picture on top, black padding below.

    Returns:
        uint8 [count, 3, S, S].
    """
    side = config.vision.image_size
    height = round(side / aspect)
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 12, 20, generator=generator)
    texture = torch.nn.functional.interpolate(coarse, size=(height, side), mode="bicubic", align_corners=False)[0]
    texture = (texture.clamp(0, 1) * 255).to(torch.uint8)
    frames = torch.zeros(count, 3, side, side, dtype=torch.uint8)
    for number in range(count):
        frames[number, :, :height] = texture.roll((3 * number, 5 * number), dims=(1, 2))
    return frames


def prompt(config: VideoMllamaConfig, frames: int, text_rows: int, seed: int = 0) -> list[int]:
    """Ids of a question about a clip: half of the text, one image token for each frame, the rest."""
    ids = text(config, text_rows, seed)
    return ids[: text_rows // 2] + [config.image_token_id] * frames + ids[text_rows // 2 :]


def text(config: VideoMllamaConfig, rows: int, seed: int = 0) -> list[int]:
    """Random ids, none of an image."""
    generator = torch.Generator().manual_seed(seed)
    return [int(i) for i in torch.randint(0, config.text.vocab_size, (rows,), generator=generator)]
