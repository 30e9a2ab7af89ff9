"""The class for VLMEvalKit with messages of its documented form. VLMEvalKit itself is on no package index: it is not run here.

Its form was read in open-compass/VLMEvalKit: vlmeval/vlm/base.py (commit 23757c4), vlmeval/inference_video.py (commit 002f7b7).
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from data_pipeline.media.decode import sample_video
from inference.evaluation import vlmevalkit
from inference.evaluation.vlmevalkit import MossVideo, register
from inference.offline import Answerer, question_rows
from inference.sources.media import read_media
from model.errors import InputError
from tests.inference.clips import write_clip
from tests.inference.evaluation.speaking import write_speaking


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kit")
    write_speaking(folder / "hf")
    write_clip(folder / "a.mp4", list(range(10, 250, 10)), fps=2)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> MossVideo:
    return MossVideo(str(folder / "hf"), device="cpu", fps=1, max_frames=8, max_new_tokens=5)


def plain(model: MossVideo, frames: torch.Tensor | None, text: str, system: str = "") -> str:
    rows = question_rows(text, 0 if frames is None else len(frames), model._model.tokenizer, system=system)
    reply = Answerer(model._model.engine, model._model.tokenizer, max_new_tokens=5).reply(rows, frames)
    return model._model.tokenizer.decode(reply, skip_special=True).strip()


def ask(model: MossVideo, folder: Path, text: str = "what turns ?", **more: Any) -> str:
    video = {"type": "video", "value": str(folder / "a.mp4")}
    return model.generate_inner([video, {"type": "text", "value": text}], dataset="Video-MME", **more)


def test_a_video_and_its_question(model: MossVideo, folder: Path) -> None:
    frames = read_media(str(folder / "a.mp4"), None, 28, fps=1.0, min_frames=8, max_frames=8)
    assert ask(model, folder) == plain(model, frames, "what turns ?")


def test_text_alone_and_pictures(model: MossVideo, folder: Path) -> None:
    from PIL import Image

    Image.new("RGB", (28, 28), (200, 10, 10)).save(folder / "a.png")
    picture = read_media(None, str(folder / "a.png"), 28, fps=1.0, min_frames=1, max_frames=1)
    assert model.generate_inner([{"type": "text", "value": "red ?"}]) == plain(model, None, "red ?")
    message = [{"type": "image", "value": str(folder / "a.png")}, {"type": "text", "value": "red ?"}]
    assert model.generate_inner(message, "MMBench") == plain(model, picture, "red ?")


def test_roles_of_items(model: MossVideo) -> None:
    message = [{"type": "text", "value": "Be brief.", "role": "system"}, {"type": "text", "value": "red ?"}]
    assert model.generate_inner(message) == plain(model, None, "red ?", system="Be brief.")


def test_a_chat(model: MossVideo) -> None:
    turns = [{"role": "user", "content": [{"type": "text", "value": "red ?"}]}]
    assert model.chat_inner(turns) == plain(model, None, "red ?")
    later = [*turns, {"role": "assistant", "content": [{"type": "text", "value": "yes"}]}, *turns]
    assert isinstance(model.chat_inner(later, dataset="MMDU"), str)


def test_the_frames_that_a_data_set_asks_for(model: MossVideo, folder: Path) -> None:
    """VLMEvalKit sets `nframe` and empties `fps`, or the other way round."""
    assert (model.nframe, model.fps) == (8, 1)
    path = str(folder / "a.mp4")
    try:
        model.nframe, model.fps = 3, None
        assert ask(model, folder) == plain(model, sample_video(path, 28, fps=1.0, min_frames=3, max_frames=3)[0], "what turns ?")
        model.nframe, model.fps = None, 0.25
        assert model._sampling().fps == 0.25
        model._own, own = vlmevalkit.dataclasses.replace(model._own, min_frames=1), model._own
        assert ask(model, folder) == plain(model, sample_video(path, 28, fps=0.25, min_frames=1, max_frames=8)[0], "what turns ?")
        model._own = own
    finally:
        model.nframe, model.fps = 8, 1


def test_items_that_are_refused(model: MossVideo) -> None:
    with pytest.raises(InputError, match="type 'audio'"):
        model.generate_inner([{"type": "audio", "value": "a.wav"}])
    with pytest.raises(InputError, match="no such file"):
        model.generate_inner([{"type": "video", "value": "nowhere.mp4"}])


def test_without_vlmevalkit_registering_says_so() -> None:
    with pytest.raises(InputError, match="VLMEvalKit is not installed here"):
        register(model_path="hf")


def test_registering(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a stand-in for VLMEvalKit's two modules, which has what ours touches: a table of models, and a base class that
    checks types before it asks."""

    class BaseModel:
        def __init__(self) -> None:
            self.dump_image_func: Any = None

        def generate(self, message: Any, dataset: str | None = None) -> str:
            assert all(item["type"] in self.allowed_types for item in message)  # type: ignore[attr-defined]
            return self.generate_inner(message, dataset)  # type: ignore[attr-defined, no-any-return]

    table: dict[str, Any] = {}
    for name, content in (("vlmeval", {}), ("vlmeval.config", {"supported_VLM": table}), ("vlmeval.vlm", {})):
        module = ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    base = ModuleType("vlmeval.vlm.base")
    base.__dict__["BaseModel"] = BaseModel
    monkeypatch.setitem(sys.modules, "vlmeval.vlm.base", base)
    register("MOSS", model_path=str(folder / "hf"), device="cpu", max_new_tokens=5)
    made = table["MOSS"]()
    assert isinstance(made, MossVideo) and isinstance(made, BaseModel)
    assert made.dump_image_func is None
    assert made.generate([{"type": "text", "value": "red ?"}]) == plain(made, None, "red ?")
