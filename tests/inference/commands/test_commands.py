"""The commands, run as a user runs them, on small checkpoints and real files."""

from __future__ import annotations

import functools
import io
import json
import threading
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from data_pipeline.text.prompts import DEFAULT_PROMPTS
from inference import offline_infer, realtime_offline_infer, realtime_streaming_infer
from inference.checkpoint import check_device, dtype_of, resolve_checkpoint
from inference.evaluation import parallel
from inference.evaluation.running.settings import RunSettings
from inference.evaluation.schema import Scenario
from inference.evaluation.storage import load_traces
from inference.realtime_streaming_infer import prompt_schedule
from model.errors import InputError
from moss_train.cli.main import main as moss
from tests.inference.checkpoints import random_tensors, tiny_config, tiny_tokenizer, write_checkpoint
from tests.inference.clips import write_clip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A real-time and an offline checkpoint of the same weights, a video and an image."""
    root = tmp_path_factory.mktemp("commands")
    tokenizer = tiny_tokenizer()
    config = tiny_config(tokenizer.vocab_size)
    tensors = random_tensors(config, seed=11)
    tensors["language_model.lm_head.weight"][tokenizer.silence_id] *= 5
    for name, stage in (("realtime", "sft_realtime"), ("offline", "sft_offline"), ("foreign", None)):
        write_checkpoint(root / name, config, tokenizer=tokenizer, tensors=tensors, stage=stage)
    write_clip(root / "clip.mp4", [20, 90, 160, 230, 40, 120], fps=2)
    Image.fromarray(np.full((20, 30, 3), 130, dtype=np.uint8)).save(root / "still.png")
    return {path.stem: str(path) for path in root.iterdir()}


def test_offline_answers_about_a_video_and_an_image(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--checkpoint", files["offline"], "--max_new_tokens", "5", "--prompt", "what is it ?", "--show-prompt"]
    assert offline_infer.main([*common, "--video_path", files["clip"], "--video_fps", "1", "--video_minlen", "1"]) == 0
    video = capsys.readouterr().out
    assert video.count("<|image|>") == 3 and "<|image|>what is it ?<|eot_id|>" in video
    assert offline_infer.main([*common, "--image-path", files["still"]]) == 0
    assert capsys.readouterr().out.count("<|image|>") == 1


def test_offline_is_greedy_and_the_other_samples_by_seed(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    def said(module: object, *more: str) -> str:
        arguments = ["--checkpoint", files["realtime"], "--video_path", files["clip"], "--max_new_tokens", "12", *more]
        assert module.main(arguments) == 0  # type: ignore[attr-defined]
        return capsys.readouterr().out

    assert said(offline_infer) == said(offline_infer, "--seed", "5")
    assert said(realtime_offline_infer, "--temperature", "0") == said(offline_infer)
    first, again, other = (said(realtime_offline_infer, "--top_k", "0", "--seed", seed) for seed in ("1", "1", "2"))
    assert first == again != other


def test_streaming_on_a_virtual_clock_is_repeatable_and_traced(
    files: dict[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    trace = tmp_path / "trace.jsonl"
    arguments = ["--checkpoint", files["realtime"], "--video_path", files["clip"], "--fps", "2", "--virtual_clock"]
    arguments += ["--prompt", "left", "--prompt_at", "1.25", "--prompt", "right", "--prompt_at", "0.1", "--idle_timeout", "1"]
    assert realtime_streaming_infer.main([*arguments, "--trace", str(trace)]) == 0
    first = capsys.readouterr().out
    assert moss(["stream", *arguments]) == 0
    assert capsys.readouterr().out == first
    (recorded,) = load_traces(trace)
    prompts = [(event.t, event.text) for event in recorded.events if event.kind == "prompt"]
    assert prompts == [(0.1, "right"), (1.25, "left")]
    frames = recorded.engine["frames"]
    assert frames["submitted"] == 6 == frames["processed"] and frames["pending"] == 0
    assert "user: right" in first and "<|silence|>" in first
    said = "".join(event.text for event in recorded.events if event.kind == "token")
    assert said and all(piece in first for piece in said.split("\n") if len(piece) < 3)


def test_streaming_in_real_time_hears_typed_prompts(
    files: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("what colour ?\n\n"))
    arguments = ["--checkpoint", files["realtime"], "--video_path", files["clip"], "--fps", "2", "--interactive"]
    assert realtime_streaming_infer.main([*arguments, "--idle_timeout", "0.2", "--max_new_tokens", "40"]) == 0
    captured = capsys.readouterr()
    assert "user: what colour ?" in captured.out and "(end: " in captured.out
    assert "frame_latency: p50" in captured.err
    assert not [t for t in threading.enumerate() if t.name == "typed prompts" and not t.daemon]


def test_a_checkpoint_that_cannot_be_silent_is_refused(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--checkpoint", files["offline"], "--video_path", files["clip"]]
    for command in (realtime_streaming_infer.main, realtime_offline_infer.main, lambda rest: moss(["stream", *rest])):
        assert command(arguments) == 2
        assert "trained up to stage sft_offline" in capsys.readouterr().err
    arguments = ["--checkpoint", files["foreign"], "--video_path", files["clip"], "--virtual_clock", "--idle_timeout", "0"]
    assert realtime_streaming_infer.main([*arguments, "--max_new_tokens", "20"]) == 0
    assert "does not say how it was trained" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--video_path", "none.mp4"], "none.mp4 does not exist"),
        (["--fps", "9"], "2 frames a second; --fps is 9"),
        (["--prompt", "x", "--prompt_at", "1", "--prompt_at", "2"], "1 --prompt and 2 --prompt_at"),
        (["--virtual_clock", "--interactive"], "--interactive needs real time"),
        (["--checkpoint", "nowhere"], "checkpoint nowhere is neither a folder nor an id"),
        (["--temperature", "-1"], "temperature is -1.0"),
        (["--tokens_per_second", "0"], "tokens_per_second is 0.0"),
        (["--device", "abacus"], "device is 'abacus'"),
        (["--dtype", "int3"], "dtype is 'int3'"),
        (["--device", "meta"], "device is 'meta'; use cpu"),
        (["--seed", "9" * 30], "seed is 999"),
        (["--idle_timeout", "nan"], "idle_timeout is nan"),
        (["--idle_timeout", "inf"], "idle_timeout is inf"),
        (["--tokens_per_second", "nan"], "tokens_per_second is nan"),
        (["--prompt", "x", "--prompt_at", "inf"], "--prompt_at is inf"),
        (["--trace", "."], "--trace . is a folder"),
        (["--srt", "."], "--srt . is a folder"),
        (["--source", "world:1"], "give one of --source and --video_path"),
        (["--follow"], "--follow works on a folder"),
        (["--max_pending_frames", "0"], "max_pending_frames is 0"),
        (["--replay", "none.jsonl"], "none.jsonl does not exist"),
    ],
)
def test_bad_input_is_one_sentence(
    files: dict[str, str], capsys: pytest.CaptureFixture[str], change: list[str], message: str
) -> None:
    arguments = ["--checkpoint", files["realtime"], "--video_path", files["clip"], "--idle_timeout", "0", *change]
    assert realtime_streaming_infer.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_what_is_typed_outranks_the_environment(
    files: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    common = ["--checkpoint", files["realtime"], "--max_new_tokens", "3", "--show-prompt"]
    monkeypatch.setenv("VIDEO_PATH", files["clip"])
    assert realtime_offline_infer.main([*common, "--video_minlen", "2", "--video_maxlen", "2"]) == 0
    assert capsys.readouterr().out.count("<|image|>") == 2
    assert realtime_offline_infer.main([*common, "--image_path", files["still"]]) == 0
    assert capsys.readouterr().out.count("<|image|>") == 1


def test_defaults_that_are_not_there_are_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert offline_infer.main([]) == 2
    assert "--checkpoint was not given, and its default models/moss-video-sft is no folder here" in capsys.readouterr().err
    monkeypatch.delenv("CHECKPOINT", raising=False)
    with pytest.raises(SystemExit, match="2"):
        realtime_offline_infer.main([])


def test_offline_takes_the_references_video_where_none_is_named(
    files: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "example_video.mp4").write_bytes(Path(files["clip"]).read_bytes())
    monkeypatch.chdir(tmp_path)
    common = ["--checkpoint", files["offline"], "--max_new_tokens", "2", "--show-prompt"]
    assert offline_infer.main([*common, "--video_minlen", "2", "--video_maxlen", "2"]) == 0
    assert capsys.readouterr().out.count("<|image|>") == 2
    assert offline_infer.main([*common, "--image_path", files["still"]]) == 0  # the default video does not stand in its way
    assert capsys.readouterr().out.count("<|image|>") == 1


def test_thinking_modes_choose_the_system_text(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    def shown(*more: str) -> str:
        arguments = ["--checkpoint", files["foreign"], "--max_new_tokens", "2", "--show-prompt", *more]
        assert realtime_offline_infer.main(arguments) == 0
        return capsys.readouterr().out

    video, image = ["--video_path", files["clip"], "--video_maxlen", "2"], ["--image_path", files["still"]]
    assert DEFAULT_PROMPTS["video"] in shown(*video) and "<thinking>" not in shown(*video)
    assert DEFAULT_PROMPTS["text_image"] in shown(*image)
    assert DEFAULT_PROMPTS["video_thinking"] in shown(*video, "--thinking_mode", "deep_thinking")
    assert DEFAULT_PROMPTS["text_image_thinking"] in shown(
        *video, "--thinking_mode", "deep_thinking", "--system_prompt_type", "text_image"
    )
    assert "watch quietly" in shown(*video, "--thinking_mode", "deep_thinking", "--system_prompt", "watch quietly")


def test_frames_encoded_in_chunks_give_the_same_answer(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for chunk in ("64", "4", "1"):
        arguments = ["--checkpoint", files["offline"], "--video_path", files["clip"], "--max_new_tokens", "8"]
        assert offline_infer.main([*arguments, "--vision_chunked_length", chunk]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] == said[2]


def test_offline_needs_exactly_one_medium(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    for media in ([], ["--video_path", files["clip"], "--image_path", files["still"]]):
        assert offline_infer.main(["--checkpoint", files["offline"], *media]) == 2
        assert "exactly one of --video_path and --image_path" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--video_maxlen", "-3"], "--video_maxlen is -3"),
        (["--video_maxlen", "0"], "--video_maxlen is 0"),
        (["--video_minlen", "-1"], "--video_minlen is -1"),
        (["--prompt", "a <|image|> b"], "contains <|image|>"),
        (["--prompt", "a <|video|> b"], "contains <|video|>"),
    ],
)
def test_bad_questions_are_one_sentence(
    files: dict[str, str], capsys: pytest.CaptureFixture[str], change: list[str], message: str
) -> None:
    assert offline_infer.main(["--checkpoint", files["offline"], "--video_path", files["clip"], "--video_fps", "1", *change]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_frame_marker_in_what_the_user_says_does_not_end_the_stream(
    files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--checkpoint", files["realtime"], "--video_path", files["clip"], "--virtual_clock", "--idle_timeout", "0"]
    assert realtime_streaming_infer.main([*arguments, "--prompt", "look <|image|> <|video|> there", "--prompt_at", "1"]) == 0
    assert "(end: " in capsys.readouterr().out


def test_a_clip_damaged_in_the_middle_ends_on_a_line_of_its_own(
    files: dict[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    content = bytearray(Path(files["clip"]).read_bytes())
    with av.open(files["clip"]) as clip:
        packets = [packet for packet in clip.demux(video=0) if packet.size and packet.pos is not None]
    for packet in packets[5:]:
        content[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    (tmp_path / "hurt.mp4").write_bytes(content)
    arguments = ["--checkpoint", files["realtime"], "--video_path", str(tmp_path / "hurt.mp4"), "--virtual_clock", "--fps", "2"]
    code = realtime_streaming_infer.main([*arguments, "--trace", str(tmp_path / "t.jsonl")])
    said = capsys.readouterr()
    assert code == 2 and "hurt.mp4" in said.err and said.out.endswith("\n")
    assert not (tmp_path / "t.jsonl").exists()


def test_places_that_cannot_be_written_show_at_once(
    files: dict[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    in_the_way = f"{files['still']}/x.jsonl"
    arguments = ["--checkpoint", files["realtime"], "--video_path", files["clip"], "--trace", in_the_way]
    assert realtime_streaming_infer.main(arguments) == 2
    said = capsys.readouterr()
    assert "still.png is in the way" in said.err and said.out == ""
    scenario = {"id": "a", "video": files["clip"], "fps": 1, "num_frames": 2}
    (tmp_path / "s.jsonl").write_text(json.dumps(scenario) + "\n")
    assert moss(["eval", str(tmp_path / "s.jsonl"), "--checkpoint", files["realtime"], "--out", files["still"]]) == 2
    assert "still.png is in the way" in capsys.readouterr().err


def test_prompt_schedule() -> None:
    assert prompt_schedule([], []) == []
    assert prompt_schedule(["a"], []) == [(1.0, "a")]
    assert prompt_schedule(["a", "b"], [3.0, 2.0]) == [(2.0, "b"), (3.0, "a")]
    with pytest.raises(InputError, match="must be 0 or more"):
        prompt_schedule(["a"], [-1.0])


def test_hub_ids_need_their_package_or_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(InputError, match="needs the package huggingface_hub"):
        resolve_checkpoint("owner/name")
    monkeypatch.setitem(__import__("sys").modules, "modelscope", None)
    with pytest.raises(InputError, match="needs the package modelscope"):
        resolve_checkpoint("modelscope:owner/name")


def test_devices_and_dtypes() -> None:
    assert check_device("cpu") == "cpu" and str(dtype_of("bf16")) == "torch.bfloat16"


def test_eval_writes_traces_scores_and_baselines(
    files: dict[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_clip(tmp_path / "v" / "a.mp4", [20, 200, 90, 230])
    rows = [
        {
            "id": f"s{i}",
            "video": "v/a.mp4",
            "fps": 1,
            "num_frames": 4,
            "prompts": [{"t": 1.5, "text": "left"}],
            "spans": [{"a": i % 4, "b": i % 4, "text": "red ball appears."}],
            "questions": [
                {"text": "Which colour?", "answer": "red", "kind": "colour"},
                {"text": "Which way?", "answer": "a to b, going left", "kind": "direction", "t": 2},
            ],
        }
        for i in range(3)
    ]
    scenarios = tmp_path / "scenarios.jsonl"
    scenarios.write_text("\n".join(map(json.dumps, rows)) + "\n")
    arguments = ["eval", str(scenarios), "--checkpoint", files["realtime"], "--max-answer-tokens", "6", "--tokens-per-frame", "6"]
    assert moss([*arguments, "--out", str(tmp_path / "one"), "--together", "2", "--untrained-baseline"]) == 0
    assert "qa.direction" in capsys.readouterr().out
    for folder in ("", "untrained", "always_silent", "every_frame", "class_prior"):
        scores = json.loads((tmp_path / "one" / folder / "scores.json").read_text())
        assert set(scores["qa"]) == {"colour", "direction", "all"} and 0 <= scores["speak"]["f1"] <= 1
        traces = load_traces(tmp_path / "one" / folder / "traces.jsonl")
        assert [(t.scenario_id, t.mode) for t in traces] == [(f"s{i}", m) for i in range(3) for m in ("push", "offline")]
    assert moss([*arguments, "--out", str(tmp_path / "two"), "--workers", "2", "--together", "2"]) == 0
    one, two = ((tmp_path / name / "traces.jsonl").read_text() for name in ("one", "two"))
    assert one == two
    rows[1]["video"] = "v/missing.mp4"
    scenarios.write_text("\n".join(map(json.dumps, rows)) + "\n")
    assert moss([*arguments, "--out", str(tmp_path / "bad")]) == 2
    assert "missing.mp4" in capsys.readouterr().err
    assert not (tmp_path / "bad").exists()


def test_a_worker_process_hands_its_error_back(files: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(parallel, "_failures", [])
    monkeypatch.setattr(parallel, "_runner", None)
    scenario = Scenario(id="a", video="missing.mp4", fps=1.0, num_frames=2)
    make = functools.partial(parallel.make_runner, Path(files["realtime"]), tmp_path, RunSettings(), "cpu", torch.float32)
    parallel._start_worker(make)
    assert "missing.mp4" in str(parallel._run_group([scenario]))
    broken = functools.partial(parallel.make_runner, tmp_path, tmp_path, RunSettings(), "cpu", torch.float32)
    parallel._start_worker(broken)
    assert "config.json" in str(parallel._run_group([scenario]))
