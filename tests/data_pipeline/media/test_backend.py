"""The decoders give the same frames and refuse what they cannot do."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from data_pipeline.media.backend import BACKENDS, Decoding, import_problem
from data_pipeline.media.decode import load_frames, open_video, probe_video
from model.errors import InputError
from tests.data_pipeline.helpers import grey_levels, make_video
from tests.data_pipeline.media.clips import all_frames, moving_clip

OTHERS = [
    pytest.param(name, marks=pytest.mark.skipif(import_problem(name) is not None, reason=f"{name} does not import here"))
    for name in BACKENDS
    if name != "pyav"
]
VARYING = [i / 8 for i in range(8)] + [1.0 + i / 2 for i in range(8)]


@pytest.mark.parametrize("backend", OTHERS)
def test_every_backend_gives_the_same_frames(backend: str) -> None:
    content = moving_clip(30, preset="medium", crf="20")
    plain = all_frames(content)
    with open_video(content, decoding=Decoding(backend)) as video:
        assert video.info == probe_video(content)
        found = list(video.frames([0, 3, 3, 17, 29]))
    for number, frame in zip([0, 3, 3, 17, 29], found, strict=True):
        # the same decoder, but each library converts colours with an FFmpeg of its own
        assert frame.shape == plain[number].shape and np.abs(frame.astype(int) - plain[number]).max() <= 2


@pytest.mark.parametrize("backend", OTHERS)
def test_every_backend_turns_a_file_upright_and_states_its_stored_size(backend: str) -> None:
    content = make_video([80], rotation=90)
    with open_video(content, decoding=Decoding(backend)) as video:
        assert (video.info.width, video.info.height) == (64, 48)
    difference = load_frames(content, [0], 64, decoding=Decoding(backend)).int() - load_frames(content, [0], 64).int()
    assert difference.abs().max() <= 2


@pytest.mark.parametrize("backend", OTHERS)
def test_every_backend_repeats_a_last_frame_but_refuses_an_early_end(backend: str) -> None:
    content = make_video(grey_levels(12))
    assert len(load_frames(content, [10, 11, 12], 64, decoding=Decoding(backend))) == 3
    with pytest.raises(InputError, match="clip ends after 12 frames; 4 of 5"):
        load_frames(content, [11, 12, 13, 14, 15], 64, "clip", decoding=Decoding(backend))


@pytest.mark.parametrize("backend", OTHERS)
@pytest.mark.parametrize("content", [b"", b"no video at all"])
def test_every_backend_names_a_damaged_file(backend: str, content: bytes) -> None:
    with pytest.raises(InputError, match=r"video broken\.mp4"):
        load_frames(content, [0], 64, "broken.mp4", decoding=Decoding(backend))


@pytest.mark.skipif(import_problem("torchcodec") is not None, reason="torchcodec does not import here")
def test_torchcodec_reads_a_varying_rate_by_time() -> None:
    content, times = make_video(grey_levels(16), times=VARYING), [0.0, 0.5, 1.0, 2.6]
    found = load_frames(content, [0, 4, 8, 12], 64, times=times, decoding=Decoding("torchcodec"))
    expected = load_frames(content, [0, 4, 8, 12], 64, times=times, decoding=Decoding("pyav"))
    assert (found.int() - expected.int()).abs().max() <= 2


@pytest.mark.skipif(import_problem("opencv") is not None, reason="cv2 does not import here")
def test_opencv_refuses_a_varying_rate() -> None:
    with pytest.raises(InputError, match="varying rate"):
        load_frames(make_video(grey_levels(16), times=VARYING), [0, 9], 64, decoding=Decoding("opencv"))


def test_unknown_and_unable_backends_are_refused() -> None:
    with pytest.raises(InputError, match=r"data\.decode\.backend is 'ffmpeg'; use auto or one of pyav, torchcodec, opencv"):
        Decoding("ffmpeg").opener()
    for backend in [p.values[0] for p in OTHERS]:
        with pytest.raises(InputError, match=r"skip_non_reference works with PyAV only|no such decoder imports"):
            Decoding(str(backend), skip_non_reference=True).opener()


WITHOUT_DECODERS = """
import sys
for name in ("av", "cv2"):
    sys.modules[name] = None
from data_pipeline.media.backend import Decoding
from model.errors import InputError
try:
    Decoding().chosen()
except InputError as error:
    print(error)
"""


def test_a_machine_without_a_decoder_is_told_what_to_install() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_DECODERS], capture_output=True, text=True, check=True)
    assert "no such decoder imports here" in done.stdout and "pip install av" in done.stdout
