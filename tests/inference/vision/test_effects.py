"""What fast modes change, measured on files as a user's: `moss verify vision` prints it and writes it down."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from data_pipeline.media.decode import sample_video
from inference.engine import StepEngine
from inference.model.load import load_model
from inference.vision.effects import alternatives, measure_effects
from inference.vision.mode import VisionMode, vision_mode
from moss_train.cli.main import main
from tests.inference.checkpoints import tiny_config, tiny_tokenizer, write_checkpoint


def _moving_square(path: Path) -> Path:
    """Eight seconds of a 16:9 clip: a light square on a patterned ground; it rests in the third and fourth second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 36, "yuv420p"
        for place in (0, 6, 12, 12, 24, 30, 36, 42):
            picture = np.tile(np.arange(64, dtype=np.uint8)[None, :, None] * 2, (36, 1, 3))
            picture[10:22, place : place + 12] = 230
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _moving_square(tmp_path_factory.mktemp("clips") / "square.mp4")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), tiny_config(), tokenizer=tiny_tokenizer())


def test_the_measure_is_zero_for_exact_and_counts_what_is_computed(checkpoint: Path, clip: Path) -> None:
    engine = StepEngine(load_model(checkpoint))
    image = engine.image_id
    frames, _ = sample_video(str(clip), 28, fps=1, min_frames=1, max_frames=8)
    modes = [VisionMode(), vision_mode("valid_rows"), vision_mode("exact", near_duplicate=6.0), *alternatives()]
    found = {effect.mode: effect for effect in measure_effects(engine, frames, [3, *[image] * 8, 5, 6], modes, tokens=6)}
    exact, taken, cheaper = found["exact"], found["valid_rows"], found["valid_rows, keys once"]
    assert min(exact.cosine) > 1 - 1e-6 and exact.greedy_agreement == 1.0 and max(map(abs, exact.kl)) < 1e-6
    assert taken.patches == 0.75  # 15 of 28 rows of pixels are 3 of 4 rows of patches
    assert sum(taken.cosine) > sum(cheaper.cosine)
    assert 1e-9 < max(taken.kl) < 0.05
    assert found["exact, near duplicates below 6"].encoded_frames == 7


def test_the_command(checkpoint: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "effects.json"
    arguments = ["verify", "vision", str(checkpoint), "--video", str(clip), "--mode", "fast", "--mode", "fp8", "--tokens", "4"]
    assert main([*arguments, "--max_frames", "4", "--json", str(out)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "4 frames of square.mp4, float32 on cpu"
    assert printed[2].split()[0] == "mode" and [line.split()[0] for line in printed[3:]] == ["fast", "fp8"]
    written = json.loads(out.read_text())
    assert written["exact_difference"] < 1e-5
    assert [len(effect["cosine"]) for effect in written["effects"]] == [4, 4]
    assert all(len(effect["kl"]) == 4 and 0.9 < min(effect["cosine"]) < 1 for effect in written["effects"])


def test_the_numbers_by_hand(checkpoint: Path, clip: Path) -> None:
    """KL and agreement of one mode, from logits of whole sequences."""
    engine = StepEngine(load_model(checkpoint))
    model, image = engine.model, engine.image_id
    frames, _ = sample_video(str(clip), 28, fps=1, min_frames=1, max_frames=3)
    prompt = [3, *[image] * 3, 5]
    effect = next(iter(measure_effects(engine, frames, prompt, [vision_mode("fp8")], tokens=3)))
    from inference.vision.encoder import FrameEncoder

    rounded = FrameEncoder(model.vision, mode=vision_mode("fp8")).encode(frames)
    reply: list[int] = []
    rows = []
    for _ in range(3):
        one, other = (engine.step(engine.new_cache(), prompt + reply, states)[-1] for states in (engine.encode(frames), rounded))
        rows.append((one.log_softmax(-1), other.log_softmax(-1)))
        reply.append(int(one.argmax()))
    kl = [float((one.exp() * (one - other)).sum()) for one, other in rows]
    torch.testing.assert_close(torch.tensor(effect.kl), torch.tensor(kl), atol=1e-6, rtol=1e-3)
    assert effect.greedy_agreement == sum(int(a.argmax()) == int(b.argmax()) for a, b in rows) / 3
    first = F.cosine_similarity(rounded[0].flatten(), engine.encode(frames)[0].flatten(), dim=0)
    assert abs(effect.cosine[0] - float(first)) < 1e-6


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        (["--tokens", "0"], "--tokens is 0"),
        (["--mode", "quick"], "vision mode 'quick' is not known"),
        (["--dtype", "int4"], "int4"),
    ],
)
def test_bad_arguments(checkpoint: Path, clip: Path, extra: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "vision", str(checkpoint), "--video", str(clip), *extra]) == 2
    assert sentence in capsys.readouterr().err
