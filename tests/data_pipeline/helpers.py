"""Real media, a tokenizer and settings for the tests of the data pipeline."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from data_pipeline.schema import Media, Message, Sample
from data_pipeline.shards import write_samples
from data_pipeline.text.demo_tokenizer import train_demo_tokenizer
from data_pipeline.text.tokenizer import Tokenizer
from model.config import TextConfig, VideoMllamaConfig, VisionConfig
from moss_train.config.schema import DataConfig, DatasetConfig, FrameConfig, StageConfig

VOCABULARY = 400
TEXTS = ["the red ball moves left .", "a blue flag appears .", "what colour is it ?", "assistant user system"] * 4


def tokenizer() -> Tokenizer:
    return train_demo_tokenizer(TEXTS, VOCABULARY)


def model_config(image_size: int = 64, vocab_size: int = VOCABULARY) -> VideoMllamaConfig:
    vision = VisionConfig(
        hidden_size=32,
        num_attention_heads=2,
        num_hidden_layers=2,
        num_global_layers=1,
        intermediate_size=64,
        image_size=image_size,
        patch_size=8,
        pool_stride=2,
        intermediate_layers_indices=(0, 1),
    )
    text = TextConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        num_hidden_layers=3,
        cross_attention_layers=(1,),
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=64,
    )
    return VideoMllamaConfig(vision=vision, text=text)


def grey_levels(count: int, first: int = 20, step: int = 10) -> list[int]:
    return [first + step * i for i in range(count)]


def make_video(
    levels: list[int],
    *,
    rate: float | Fraction = 8,
    width: int = 64,
    height: int = 48,
    container: str = "mp4",
    rotation: int = 0,
    times: list[float] | None = None,
    pix_fmt: str = "yuv420p",
) -> bytes:
    """H.264: frame i is grey with value levels[i], its top left quarter brighter by 60.

    Args:
        times: start of each frame in seconds; by default at the constant rate.
    """
    buffer = io.BytesIO()
    fraction = Fraction(rate).limit_denominator(100000)
    with av.open(buffer, "w", format=container) as out:
        stream = out.add_stream("libx264", rate=fraction, options={"preset": "ultrafast", "crf": "1"})
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.time_base = Fraction(1, 12000)
        if rotation:
            stream.set_display_rotation(rotation)
        for index, level in enumerate(levels):
            pixels = np.full((height, width, 3), level, dtype=np.uint8)
            pixels[: height // 2, : width // 2] += 60
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            start = times[index] if times is not None else index / float(fraction)
            frame.pts, frame.time_base = round(start * 12000), Fraction(1, 12000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return buffer.getvalue()


def make_image(width: int = 40, height: int = 30, colour: tuple[int, int, int] = (200, 30, 30), form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, form, quality=95)
    return buffer.getvalue()


def video_sample(index: int, fps: float = 8.0) -> tuple[str, Sample, dict[str, bytes]]:
    """Four frames whose grey tells the index."""
    sample = Sample(
        kind="video",
        messages=[
            Message(role="user", content="<|video|>what colour is it ?"),
            Message(role="assistant", content=f"the red ball {index}"),
        ],
        media=[Media(type="video", file="0.mp4", fps=fps)],
    )
    return f"v{index:04d}", sample, {"0.mp4": make_video(grey_levels(4, 10 + index % 60))}


def image_sample(index: int) -> tuple[str, Sample, dict[str, bytes]]:
    sample = Sample(
        kind="image",
        messages=[Message(role="user", content=""), Message(role="assistant", content=f"<|image|>a blue flag {index}")],
        media=[Media(type="image", file="0.jpg")],
        template="mllama_pretrain",
    )
    return f"i{index:04d}", sample, {"0.jpg": make_image(colour=(index % 250, 80, 80), form="JPEG")}


def text_sample(index: int) -> tuple[str, Sample, dict[str, bytes]]:
    messages = [Message(role="user", content="what ?"), Message(role="assistant", content=f"nothing {index}")]
    return f"t{index:04d}", Sample(kind="text", messages=messages), {}


def realtime_sample(index: int) -> tuple[str, Sample, dict[str, bytes]]:
    text = "<|silence|><|video|><|silence|><|video|>the red<|video|> ball moves<|silence|><|video|><|silence|>"
    sample = Sample(
        kind="realtime",
        messages=[Message(role="user", content=""), Message(role="assistant", content=text)],
        media=[Media(type="video", file="0.mp4", markers="per_frame", frame_times=[0, 1, 2, 3])],
    )
    return f"r{index:04d}", sample, {"0.mp4": make_video(grey_levels(4, 10 + index % 60), rate=1)}


def write_mixture(root: Path, count: int = 12) -> None:
    """Folders video, image, text and realtime of `count` samples each, three shards in each."""
    makers = {"video": video_sample, "image": image_sample, "text": text_sample, "realtime": realtime_sample}
    for name, make in makers.items():
        write_samples(root / name, (make(i) for i in range(count)), samples_per_shard=-(-count // 3))


def data_config(root: Path, names: tuple[str, ...] = ("video", "image", "text", "realtime"), **values: Any) -> DataConfig:
    datasets = [DatasetConfig(name=n, path=n, modality=n) for n in names]
    defaults: dict[str, Any] = {
        "global_data_workers": 1,
        "worker_processes": 0,
        "shuffle_buffer": 4,
        "packing_buffer": 6,
        "mixture": dict.fromkeys(names, 1.0),
    }
    return DataConfig(root=str(root), datasets=datasets, validation=datasets, **{**defaults, **values})


def stage_config(**values: Any) -> StageConfig:
    defaults: dict[str, Any] = {
        "sequence_length": 128,
        "max_frames_per_pack": 12,
        "frames": FrameConfig(fps=8.0, min_frames=1, max_frames=12),
    }
    return StageConfig(name="test", **{**defaults, **values})
