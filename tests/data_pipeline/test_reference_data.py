"""The reference's own sample files: what they import to, and the recorded numbers about their pixels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from data_pipeline.media.decode import probe_video, sample_video
from data_pipeline.media.image import load_image
from data_pipeline.media.sampling import sample_indices
from model.errors import InputError
from tests.data_pipeline.formats.helpers import import_file

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)


def normalised(frame: torch.Tensor) -> torch.Tensor:
    return (frame / 255 - MEAN) / STD


def close(a: torch.Tensor, b: list[float], tolerance: float) -> bool:
    return bool((a - torch.tensor(b)).abs().max() <= tolerance)


def test_a_still_has_the_recorded_statistics(reference_data: Path) -> None:
    pixels = normalised(load_image(reference_data / "mllm_demo_data" / "1.jpg", 560))
    assert float(pixels.mean()) == pytest.approx(-0.783627, abs=2e-3)
    assert float(pixels.std()) == pytest.approx(1.261070, abs=2e-3)
    level = 1 / 255 / 0.26  # one level of a byte
    assert close(pixels[:, 0, 0], [-1.36891, -1.39191, -1.19582], 1.1 * level)
    assert close(pixels[:, 100, 200], [-0.60979, -0.47644, -0.45637], 1.1 * level)


def test_a_first_frame_has_the_recorded_statistics(reference_data: Path) -> None:
    frames, times = sample_video(reference_data / "mllm_demo_data" / "1.mp4", 560, fps=1.0, min_frames=8, max_frames=256)
    assert frames.shape == (10, 3, 560, 560) and times == [float(i) for i in range(10)]
    first = normalised(frames[0])
    assert float(first.mean()) == pytest.approx(-0.804331, abs=2e-3)
    assert float(first.std()) == pytest.approx(0.999758, abs=2e-3)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("mllm_demo_data/1.mp4", (20, 10, 10, 10)),
        ("mllm_demo_data/2.avi", (19, 10, 10, 10)),
        ("mllm_demo_data/3.mp4", (13, 8, 7, 8)),
        ("mllm_realtime_data/v-5sRwJNR8U.mp4", (22, 11, 11, 11)),
        ("mllm_realtime_data/z8-ya9vVuHw.mp4", (40, 20, 20, 16)),
    ],
)
def test_frames_sampled_for_pretraining_sft_realtime_and_the_command_line(
    reference_data: Path, name: str, counts: tuple[int, int, int, int]
) -> None:
    info = probe_video(reference_data / name)
    policies = ((2.0, 8, 256), (1.0, 8, 256), (1.0, 1, 256), (1.0, 8, 16))
    assert tuple(len(sample_indices(info, *policy)) for policy in policies) == counts


def test_pretraining_and_offline_rows_import(reference_data: Path) -> None:
    registry = reference_data / "dataset_info.json"
    pretrain, report = import_file(registry, name="mllm_pretrain_demo", template="mllama_pretrain")
    assert report.kept == 4 and {a.sample.kind for a in pretrain} == {"image"}
    offline, report = import_file(registry, name="mllm_offline_sft_demo")
    assert report.kept == 39 and not report.dropped and len({a.files["0.mp4"] for a in offline if "0.mp4" in a.files}) == 2


def test_realtime_rows_import_but_have_no_videos(reference_data: Path) -> None:
    source = reference_data / "mllm_realtime_sft_demo.json"
    with pytest.raises(InputError, match=r"media file is missing \(100\)"):
        import_file(source)
    rows, report = import_file(source, keep_missing=True)
    assert report.kept == 100 and len(report.missing_media) == 3
    assert {len(a.sample.media[0].frame_times or []) for a in rows} == {30, 98, 155}
    assert all(a.sample.media[0].frame_times == list(range(len(a.sample.media[0].frame_times or []))) for a in rows)
