"""Answers and likelihoods of a small checkpoint, beside the plain ways to the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inference.evaluation.harness.media import clip_of
from inference.evaluation.harness.model import HarnessModel
from inference.evaluation.harness.question import Decoding, Question, Turn
from inference.evaluation.harness.settings import HarnessSettings
from inference.offline import Answerer, question_rows
from model.errors import InputError
from tests.inference.checkpoints import tiny_config, tiny_tokenizer, write_checkpoint
from tests.inference.evaluation.speaking import write_speaking

DECODING = Decoding(max_new_tokens=5)


def frames(seed: int, count: int = 3) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 256, (28, 28, 3), dtype=np.uint8) for _ in range(count)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speaking(tmp_path_factory.mktemp("harness") / "hf")


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> HarnessModel:
    return HarnessModel(HarnessSettings(checkpoint=str(checkpoint), device="cpu", dtype="fp32", batch=2))


def plain(model: HarnessModel, seed: int | None, text: str) -> str:
    """One question alone, as offline inference asks it."""
    pictures = None if seed is None else clip_of(frames(seed)).read(model.sampling)
    rows = question_rows(text, 0 if pictures is None else len(pictures), model.tokenizer)
    reply = Answerer(model.engine, model.tokenizer, max_new_tokens=5).reply(rows, pictures)
    return model.tokenizer.decode(reply, skip_special=True).strip()


def test_questions_about_the_same_clip_share_its_frames(model: HarnessModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven questions, the clips in turn: each clip is encoded once, and the answers are those of asking one by one."""
    asked = [(seed, text) for text in ("left ?", "red ball ?", "what ?") for seed in (1, 2)] + [(None, "hello")]
    expected = [plain(model, seed, text) for seed, text in asked]
    assert len(set(expected)) > 3
    encoded: list[int] = []
    encode = model.engine.encode

    def counting(pictures: torch.Tensor) -> torch.Tensor:
        encoded.append(len(pictures))
        return encode(pictures)

    monkeypatch.setattr(model.engine, "encode", counting)

    def maker(seed: int | None, text: str) -> Question:
        return Question.ask([] if seed is None else [clip_of(frames(seed))], text, DECODING)

    done: dict[int, str] = {}
    makers = [lambda seed=seed, text=text: maker(seed, text) for seed, text in asked]
    found = model.answer(makers, lambda number, answer: done.update({number: answer.text}))
    assert [answer.text for answer in found] == expected
    assert [done[i] for i in range(7)] == expected
    assert encoded == [3, 3]
    assert all(answer.output_tokens <= 5 < answer.input_tokens for answer in found)


def test_clips_stand_where_the_messages_have_them(model: HarnessModel) -> None:
    """A picture before and one behind the words: other rows than both before them; the system message stands first."""
    first, second = (clip_of([frame]) for frame in frames(3, 2))
    tokenizer = model.tokenizer
    question = Question((Turn("system", ("Be brief.",)), Turn("user", (first, "then", second, "which ?"))))
    rows = model.rows(question, [1, 1])
    text = tokenizer.decode(rows)
    assert rows.count(tokenizer.image_id) == 2
    assert text.index("Be brief.") < text.index("<|image|>then<|image|>which ?")
    both = Question.ask([first, second], "thenwhich ?", DECODING)
    assert model.rows(both, [1, 1]) == question_rows("thenwhich ?", 2, tokenizer)


def test_turns_of_one_role_are_one_and_an_open_answer_goes_on(model: HarnessModel) -> None:
    turns = (Turn("user", ("a",)), Turn("user", ("b",)), Turn("assistant", ("Best option: (",)))
    text = model.tokenizer.decode(model.rows(Question(turns), []))
    assert "a\nb" in text
    assert text.endswith("Best option: (")


def test_likelihoods_are_sums_over_the_tokens(model: HarnessModel) -> None:
    """Against one pass over prompt and answer; what greedy decoding says is greedy, anything else is not."""
    tokenizer, engine = model.tokenizer, model.engine
    clip = clip_of(frames(1))
    prompt = question_rows("left ?", 3, tokenizer)
    reply = Answerer(engine, tokenizer, max_new_tokens=2).reply(prompt, clip.read(model.sampling))
    answers = [" red ball", "yellow", "r", tokenizer.decode(reply)]

    def expected(ids: Sequence[int]) -> float:
        cache = engine.new_cache()
        logits = engine.step(cache, [*prompt, *ids], engine.encode(clip.read(model.sampling)), every_row=True)
        chances = torch.softmax(logits.double(), -1)
        return float(sum(torch.log(chances[len(prompt) - 1 + i, token]) for i, token in enumerate(ids)))

    found = model.likelihoods([lambda: Question.ask([clip], "left ?", DECODING)] * len(answers), answers)
    for (total, _), answer in zip(found, answers, strict=True):
        assert total == pytest.approx(expected(tokenizer.encode(answer.strip())), abs=1e-3)
    assert [greedy for _, greedy in found[:3]] == [False, False, False]


def test_what_greedy_decoding_says_is_greedy(model: HarnessModel) -> None:
    """Of all tokens that can be written exactly the one that a reply begins with."""
    tokenizer = model.tokenizer
    reply = Answerer(model.engine, tokenizer, max_new_tokens=1).reply(question_rows("red ?", 0, tokenizer), None)
    written = {token: tokenizer.decode([token]) for token in range(tokenizer.vocab_size)}
    single = [text for token, text in written.items() if text.strip() == text and tokenizer.encode(text) == [token]]
    assert tokenizer.decode(reply) in single
    found = model.likelihoods([lambda: Question.ask([], "red ?", DECODING)] * len(single), single)
    assert [text for text, (_, greedy) in zip(single, found, strict=True) if greedy] == [tokenizer.decode(reply)]


def test_a_sampled_answer_depends_on_its_seed_alone(model: HarnessModel) -> None:
    def ask(seed: int) -> list[str]:
        decoding = Decoding.read({"do_sample": True, "temperature": 5.0}, max_new_tokens=8, seed=seed)
        return [answer.text for answer in model.answer([lambda: Question.ask([], "red ?", decoding)])]

    assert ask(1) == ask(1) != ask(2)


def test_what_cannot_be_asked_ends_the_run_or_is_answered_with_nothing(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A damaged video, a missing one and a marker of frames among good questions, one of them about the same frames."""
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    arguments = {"checkpoint": str(checkpoint), "device": "cpu", "dtype": "fp32", "batch": 3}
    empty = HarnessModel(HarnessSettings.read({**arguments, "broken": "empty"}))
    asked: list[tuple[Any, str]] = [
        (frames(1), "left ?"),
        (str(tmp_path / "broken.mp4"), "left ?"),
        (frames(1), "<|image|> ?"),
        (str(tmp_path / "nowhere.mp4"), "left ?"),
        (frames(2), "left ?"),
    ]
    makers = [lambda visual=visual, text=text: Question.ask([clip_of(visual)], text, DECODING) for visual, text in asked]
    found = [answer.text for answer in empty.answer(makers)]
    assert found == [plain(empty, 1, "left ?"), "", "", "", plain(empty, 2, "left ?")]
    assert capsys.readouterr().err.count("warning: a question gets an empty answer") == 3
    with pytest.raises(InputError, match=r"broken\.mp4"):
        HarnessModel(HarnessSettings.read(arguments)).answer(makers[:2])


def test_too_long_a_question(model: HarnessModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HarnessModel, "_positions", 20)
    with pytest.raises(InputError, match="20 positions with those of the answer; lower max_frames or fps"):
        model.answer([lambda: Question.ask([clip_of(frames(1))], "left right up down ?" * 3, DECODING)])


def test_an_empty_answer_has_no_likelihood(model: HarnessModel) -> None:
    with pytest.raises(InputError, match="likelihood of an empty answer"):
        model.likelihoods([lambda: Question.ask([], "a", DECODING)], ["  "])


def test_a_marker_of_frames_in_the_text(model: HarnessModel) -> None:
    with pytest.raises(InputError, match="stands for frames"):
        model.answer([lambda: Question.ask([], "<|image|> what ?", DECODING)])


def test_the_checkpoint_says_how_frames_are_taken(tmp_path: Path) -> None:
    """Its own numbers where no argument is given; an argument goes before them."""
    details = {"frames": {"fps": 2.0, "min_frames": 4, "max_frames": 6}, "system": "Watch."}
    folder = write_checkpoint(tmp_path, tiny_config(), tokenizer=tiny_tokenizer(), stage="sft_offline", details=details)
    own = HarnessModel(HarnessSettings(checkpoint=str(folder), device="cpu"))
    assert (own.sampling.fps, own.sampling.min_frames, own.sampling.max_frames) == (2.0, 4, 6)
    assert "Watch." in own.tokenizer.decode(own.rows(Question.ask([], "a", DECODING), []))
    given = HarnessModel(HarnessSettings(checkpoint=str(folder), device="cpu", max_frames=2, fps=0.5, system="none"))
    assert (given.sampling.fps, given.sampling.min_frames, given.sampling.max_frames) == (0.5, 2, 2)
    assert "Watch." not in given.tokenizer.decode(given.rows(Question.ask([], "a", DECODING), []))
