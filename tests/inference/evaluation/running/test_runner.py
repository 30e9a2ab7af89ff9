"""Questions and polls answered from one encoded stream are those of fresh runs; a failure ends one scenario alone."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_pipeline.media.decode import frames_at
from data_pipeline.text.tokenizer import Tokenizer
from inference.engine import StepEngine
from inference.evaluation.evaluate import EvaluationRequest, evaluate
from inference.evaluation.latency.profile import LatencyProfile, save_profile
from inference.evaluation.resume import PARTIAL
from inference.evaluation.running import runner as running
from inference.evaluation.running.clips import clip_frames
from inference.evaluation.running.poll import says
from inference.evaluation.running.prompts import clip_rows, dialogue_rows
from inference.evaluation.running.runner import ScenarioRunner
from inference.evaluation.running.settings import RunSettings
from inference.evaluation.schema import Poll, PromptEvent, Question, Scenario, Trace
from inference.evaluation.storage import load_traces, save_scenarios, trace_as_dict
from inference.model.load import load_model
from inference.offline import Answerer
from model.errors import InputError
from tests.inference.checkpoints import random_tensors, tiny_config, tiny_tokenizer, write_checkpoint
from tests.inference.clips import write_clip

FPS = 2.0
FRAMES = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, a video, the same as images, and a damaged video."""
    root = tmp_path_factory.mktemp("running")
    tokenizer = tiny_tokenizer()
    write_checkpoint(
        root / "hf", tiny_config(tokenizer.vocab_size), tokenizer=tokenizer, tensors=random_tensors(tiny_config(), 5)
    )
    write_clip(root / "clip.mp4", [20 * i for i in range(FRAMES)], fps=2)
    for number in range(4):
        Image.fromarray(np.full((28, 28, 3), 60 * number, dtype=np.uint8)).save(root / f"{number}.png")
    (root / "damaged.mp4").write_bytes((root / "clip.mp4").read_bytes()[:300])
    return root


@pytest.fixture(scope="module")
def engine(folder: Path) -> StepEngine:
    return StepEngine(load_model(folder / "hf", "cpu", torch.float32))


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(folder / "hf")


def _scenario(name: str = "s", **fields: object) -> Scenario:
    return Scenario(**({"id": name, "video": "clip.mp4", "fps": FPS, "num_frames": FRAMES} | fields))  # type: ignore[arg-type]


def _fresh(engine: StepEngine, tokenizer: Tokenizer, folder: Path, frames: list[int], rows: list[int], most: int) -> str:
    """One reply by one session that shares nothing with any other."""
    times = [number / FPS for number in frames]
    pixels = frames_at(folder / "clip.mp4", times, engine.model.config.vision.image_size)
    answerer = Answerer(engine, tokenizer, max_new_tokens=most)
    return tokenizer.decode(answerer.reply(rows, pixels), skip_special=True).strip()


TEXTS = ["what colour is the ball ?", "left", "red ball appears ?", "up down right"]
QUESTIONS = st.lists(
    st.tuples(st.sampled_from(TEXTS), st.none() | st.floats(0, 6), st.booleans(), st.booleans()), min_size=1, max_size=5
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(QUESTIONS, st.none() | st.sampled_from([1.0, 2.5]), st.none() | st.sampled_from([2, 5]))
def test_forked_answers_are_those_of_fresh_runs(
    engine: StepEngine,
    tokenizer: Tokenizer,
    folder: Path,
    asked: list[tuple[str, float | None, bool, bool]],
    context: float | None,
    most: int | None,
) -> None:
    questions = [
        Question(
            text=text,
            answer="red ball",
            kind="free",
            t=t,
            since=t / 2 if late and t else None,
            after=[i - 1] if follows and i else [],
        )
        for i, (text, t, late, follows) in enumerate(asked)
    ]
    scenario = _scenario(questions=questions)
    how = RunSettings(max_answer_tokens=5, context_seconds=context, max_frames=most)
    (trace,) = ScenarioRunner(engine, tokenizer, folder, how).run([scenario])[0]
    expected = []
    for question in questions:
        frames = list(clip_frames(scenario, question.t, question.since, how))
        expected.append(_fresh(engine, tokenizer, folder, frames, dialogue_rows(scenario, question, len(frames), tokenizer), 5))
    assert trace.answers == expected and not trace.error
    shown = [list(clip_frames(scenario, q.t, q.since, how)) for q in questions]
    assert trace.usage["frames"] == sum(map(len, shown)) and trace.usage["encoded_frames"] == len(
        {n for one in shown for n in one}
    )


def test_polls_are_those_of_fresh_runs_and_end_at_the_word(engine: StepEngine, tokenizer: Tokenizer, folder: Path) -> None:
    how = RunSettings(max_answer_tokens=4)
    first = _fresh(engine, tokenizer, folder, [0, 1, 2], clip_rows(_scenario(), [], TEXTS[0], 3, tokenizer), 4)
    word = first.split()[0]
    polls = [
        Poll(text=TEXTS[0], begin=1.0, end=4.0, step=1.0, stop=word, then=TEXTS[1]),
        Poll(text=TEXTS[2], begin=0.0, end=5.0, step=2.0, stop=""),
    ]
    scenario = _scenario(polls=polls)
    (trace,) = ScenarioRunner(engine, tokenizer, folder, how).run([scenario])[0]
    assert trace.mode == "poll" and not trace.error
    begun, endless = trace.polls
    assert begun.stopped and [reply.t for reply in begun.replies] == [1.0] and begun.replies[0].text == first
    assert begun.final == _fresh(engine, tokenizer, folder, [0, 1, 2], clip_rows(scenario, [], TEXTS[1], 3, tokenizer), 4)
    assert not endless.stopped and [reply.t for reply in endless.replies] == [0.0, 2.0, 4.0] and endless.final == ""
    for reply in endless.replies:
        count = int(reply.t * FPS) + 1
        rows = clip_rows(scenario, [], TEXTS[2], count, tokenizer)
        assert reply.text == _fresh(engine, tokenizer, folder, list(range(count)), rows, 4)
    assert trace.usage["frames"] == 3 + 3 + 1 + 5 + 9


@pytest.mark.parametrize(
    ("reply", "word", "yes"), [("Yes, now.", "yes", True), ("No. Yes", "yes", False), ("", "yes", False), ("YES", "Yes", True)]
)
def test_the_first_word_decides(reply: str, word: str, yes: bool) -> None:
    assert says(reply, word) == yes


def test_scenarios_of_one_video_encode_it_once(
    engine: StepEngine, tokenizer: Tokenizer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    encode = engine.encode
    monkeypatch.setattr(engine, "encode", lambda frames: encoded.append(len(frames)) or encode(frames))
    question = Question(text=TEXTS[0], answer="x", kind="free")
    later = _scenario("later", begin=2.0, num_frames=8, questions=[question])  # shows frames 4 to 11 of the same video
    alone = ScenarioRunner(engine, tokenizer, folder).run([later])[0][0].answers
    assert sum(encoded) == 8
    encoded.clear()
    both = ScenarioRunner(engine, tokenizer, folder).run([_scenario(questions=[question]), later])
    assert sum(encoded) == FRAMES and both[1][0].answers == alone


def test_images_instead_of_a_video(engine: StepEngine, tokenizer: Tokenizer, folder: Path) -> None:
    write_clip(folder / "same.mp4", [0, 60, 120, 180], fps=2)
    question = Question(text=TEXTS[0], answer="x", kind="free")
    pictures = _scenario("pictures", video="", frames=[f"{n}.png" for n in range(4)], num_frames=4, questions=[question])
    (trace,) = ScenarioRunner(engine, tokenizer, folder, RunSettings(max_answer_tokens=6)).run([pictures])[0]
    pixels = torch.stack([torch.full((3, 28, 28), 60 * n, dtype=torch.uint8) for n in range(4)])
    rows = dialogue_rows(pictures, question, 4, tokenizer)
    assert trace.answers == [
        tokenizer.decode(Answerer(engine, tokenizer, max_new_tokens=6).reply(rows, pixels), skip_special=True).strip()
    ]


def test_a_failure_ends_one_scenario_alone(engine: StepEngine, tokenizer: Tokenizer, folder: Path) -> None:
    question = Question(text=TEXTS[0], answer="x", kind="free")
    good = _scenario("good", questions=[question])
    bad = [
        _scenario("damaged", video="damaged.mp4", questions=[question]),
        _scenario("short", num_frames=50, questions=[question]),
        _scenario("marked", questions=[dataclasses.replace(question, text="<|video|> ?")]),
        _scenario("stream", video="damaged.mp4"),
    ]
    runner = ScenarioRunner(engine, tokenizer, folder)
    alone = runner.run([good])[0][0]
    found = {trace.scenario_id: trace for traces in runner.run([good, *bad]) for trace in traces}
    assert trace_as_dict(found["good"]) == trace_as_dict(alone)
    assert "damaged.mp4 of scenario damaged" in found["damaged"].error and found["damaged"].answers == [""]
    assert "there is no frame at" in found["short"].error and "stands for frames" in found["marked"].error
    assert found["stream"].mode == "push" and "damaged.mp4" in found["stream"].error
    for scenario in bad:
        with pytest.raises(InputError):
            ScenarioRunner(engine, tokenizer, folder, strict=True).run([scenario])


def test_scores_that_are_not_finite_end_one_scenario_alone(folder: Path, tokenizer: Tokenizer) -> None:
    engine = StepEngine(load_model(folder / "hf", "cpu", torch.float32))
    encode = engine.encode

    def poisoned(frames: torch.Tensor) -> torch.Tensor:
        features = encode(frames).clone()
        features[frames.amax(dim=(1, 2, 3)) > 225] = float("nan")  # the last frame of the video
        return features

    engine.encode = poisoned  # type: ignore[method-assign]
    questions = [Question(text=TEXTS[0], answer="x", kind="free", t=t) for t in (1.0, 5.5)]
    scenarios = [_scenario(str(i), questions=[question]) for i, question in enumerate(questions)]
    write_clip(folder / "bright.mp4", [20] * 11 + [250], fps=2)
    for scenario in scenarios:
        scenario.video = "bright.mp4"
    fine, spoilt = (traces[0] for traces in ScenarioRunner(engine, tokenizer, folder).run(scenarios))
    assert not fine.error and fine.answers[0] and "no token can be chosen" in spoilt.error


def _small_device(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[StepEngine, list[Scenario]]:
    """An engine that has no memory to encode the frames of the second scenario, which is also streamed."""
    engine = StepEngine(load_model(folder / "hf", "cpu", torch.float32))
    encode = engine.encode

    def scarce(frames: torch.Tensor) -> torch.Tensor:
        if int(frames.max()) > 225:
            raise torch.OutOfMemoryError("no memory for a bright picture")
        return encode(frames)

    monkeypatch.setattr(engine, "encode", scarce)
    write_clip(folder / "white.mp4", [250] * 3, fps=2)
    question = Question(text=TEXTS[0], answer="x", kind="free")
    prompts = [PromptEvent(t=0.0, text="left")]
    both = [_scenario("dark", questions=[question]), _scenario("white", video="white.mp4", questions=[question], prompts=prompts)]
    return engine, [dataclasses.replace(scenario, fps=20.0, num_frames=2) for scenario in both]


def test_what_ends_a_step_of_all_ends_one_mode_of_one_scenario(
    folder: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, scenarios = _small_device(folder, monkeypatch)
    runner = ScenarioRunner(engine, tokenizer, folder)
    dark, white = runner.run(scenarios)
    assert [(trace.mode, trace.error) for trace in dark] == [("offline", "")] and dark[0].answers[0]
    assert [(trace.mode, trace.error) for trace in white] == [("push", ""), ("offline", "no memory for a bright picture")]
    # A group of one is no different.
    assert [trace.error for trace in runner.run(scenarios[1:])[0]] == ["", "no memory for a bright picture"]
    with pytest.raises(torch.OutOfMemoryError):
        ScenarioRunner(engine, tokenizer, folder, strict=True).run(scenarios)


def test_streams_in_real_time_are_not_run_again_where_questions_fail(
    folder: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, scenarios = _small_device(folder, monkeypatch)
    streamed: list[str] = []
    stream = running.run_in_real_time
    monkeypatch.setattr(running, "run_in_real_time", lambda *args: streamed.append(args[2].id) or stream(*args))
    runner = ScenarioRunner(engine, tokenizer, folder, RunSettings(clock="wall"))
    dark, white = runner.run(scenarios)
    assert streamed == ["white"] and not dark[0].error
    assert [trace.mode for trace in white] == ["push", "offline"] and not white[0].error and white[1].error


def test_too_long_a_clip_is_said(engine: StepEngine, tokenizer: Tokenizer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = _scenario(questions=[Question(text=TEXTS[0], answer="x", kind="free")])
    text = dataclasses.replace(engine.model.config.text, max_position_embeddings=30)
    monkeypatch.setattr(engine.model, "config", dataclasses.replace(engine.model.config, text=text))
    (trace,) = ScenarioRunner(engine, tokenizer, folder).run([scenario])[0]
    assert "the model 30 positions; show it fewer frames with --max-frames or --context-seconds" in trace.error


def _request(folder: Path, out: Path) -> EvaluationRequest:
    questions = [Question(text=text, answer="x", kind="free") for text in TEXTS[:2]]
    save_scenarios(folder / "set.jsonl", [_scenario(str(number), questions=questions) for number in range(5)])
    return EvaluationRequest(scenarios=folder / "set.jsonl", checkpoint=folder / "hf", out=out, together=2)


def test_workers_would_take_each_others_time(folder: Path, tmp_path: Path) -> None:
    request = dataclasses.replace(_request(folder, tmp_path / "out"), settings=RunSettings(clock="wall"), workers=2)
    with pytest.raises(InputError, match="clock wall and 2 workers"):
        evaluate(request)
    assert not (tmp_path / "out").exists()


def test_modes_that_fit_nothing_are_said(folder: Path, tmp_path: Path) -> None:
    request = dataclasses.replace(_request(folder, tmp_path / "out"), settings=RunSettings(modes=("poll", "teacher")))
    with pytest.raises(InputError, match=r"no scenario of .*set\.jsonl has anything for the modes poll, teacher; name others"):
        evaluate(request)
    assert not (tmp_path / "out").exists()


def test_an_interrupted_evaluation_goes_on(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evaluate(_request(folder, tmp_path / "whole"))
    ran: list[list[str]] = []
    run = running.ScenarioRunner.run

    def counted(self: ScenarioRunner, scenarios: list[Scenario]) -> list[list[Trace]]:
        if len(ran) == 1 and not (tmp_path / "again").exists():
            (tmp_path / "again").mkdir()
            raise KeyboardInterrupt
        ran.append([scenario.id for scenario in scenarios])
        return run(self, scenarios)

    monkeypatch.setattr(running.ScenarioRunner, "run", counted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(_request(folder, tmp_path / "parts"))
    partial = tmp_path / "parts" / PARTIAL
    with partial.open("a", encoding="utf-8") as file:
        file.write('[[{"scenario_id": "2", "mo')  # what a kill in the midst of a line leaves
    parts = evaluate(_request(folder, tmp_path / "parts"))
    assert ran == [["0", "1"], ["2", "3"], ["4"]] and parts.scores == whole.scores and not partial.exists()
    ours, theirs = (load_traces(tmp_path / name / "traces.jsonl") for name in ("parts", "whole"))
    assert ours == theirs


def test_what_another_run_left_behind_is_not_used(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = _request(folder, tmp_path / "out")
    evaluate(request)
    begun = _stopped_after_one_group(request, monkeypatch)
    assert begun == 2
    assert _groups_run(dataclasses.replace(request, settings=RunSettings(max_answer_tokens=3)), monkeypatch) == [2, 2, 1]


PROFILE = LatencyProfile(encode=[(1, 0.01)], steps=[(1, 0.01)], speaking_seconds=0.01)


@pytest.mark.parametrize("changed", ["video", "profile", "weights", "converted anew", "nothing"])
def test_a_file_that_changed_is_noticed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str) -> None:
    shutil.copytree(folder, tmp_path / "in")
    save_profile(tmp_path / "profile.json", PROFILE)
    settings_ = RunSettings(latency_profile=str(tmp_path / "profile.json"))
    request = dataclasses.replace(_request(tmp_path / "in", tmp_path / "out"), settings=settings_)
    if changed == "converted anew":
        (tmp_path / "in/hf/certificate.json").write_text("{}")
    _stopped_after_one_group(request, monkeypatch)
    weights = tmp_path / "in/hf/model.safetensors"
    if changed == "video":
        write_clip(tmp_path / "in/clip.mp4", [5] * FRAMES, fps=2)
    elif changed == "profile":
        save_profile(tmp_path / "profile.json", dataclasses.replace(PROFILE, speaking_seconds=0.02))
    elif changed != "nothing":
        os.utime(weights, ns=(1, 1))
    ran = _groups_run(request, monkeypatch)
    assert ran == ([2, 1] if changed in ("nothing", "converted anew") else [2, 2, 1])


def test_a_model_that_was_run_is_not_run_again_where_the_next_one_stopped(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = dataclasses.replace(_request(folder, tmp_path / "out"), untrained_baseline=True)

    def stop(name: str, _: int, __: int) -> None:
        if name == "untrained":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(request, stop)
    assert _groups_run(request, monkeypatch) == [2, 2, 1]  # the untrained model's alone
    assert not list(tmp_path.rglob(PARTIAL))


def _groups_run(request: EvaluationRequest, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    ran: list[int] = []
    run = running.ScenarioRunner.run
    monkeypatch.setattr(running.ScenarioRunner, "run", lambda self, scenarios: ran.append(len(scenarios)) or run(self, scenarios))
    evaluate(request)
    return ran


def _stopped_after_one_group(request: EvaluationRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    done: list[int] = []

    def stop(_: str, finished: int, __: int) -> None:
        done.append(finished)
        if finished == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(request, stop)
    return done[-1]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
