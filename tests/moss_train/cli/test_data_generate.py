"""`moss data generate`, run as a user would."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import yaml

from data_pipeline.generator.build.config import BuildConfig
from data_pipeline.shards.info import check_shards, read_samples
from data_pipeline.timeline.readers.registry import READERS
from moss_train.cli.data.generate import load_settings
from moss_train.cli.main import main
from moss_train.config.compose import conf_dir

NAMES = sorted(path.stem for path in (conf_dir() / "generator").glob("*.yaml"))
SMALL = ["world.seconds=8", "rows_per_part=3", "rows.validation=2", "rows.test=2"]
PAGE = Path(__file__).resolve().parents[3] / "docs" / "generator.md"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("corpus") / "out"
    more = ["outputs={questions: 1, narration: 1}", "world.variants={plain: 1, frozen: 1}"]
    assert main(["data", "generate", str(out), "--workers", "1", *SMALL, "rows.train=5", *more]) == 0
    return out


def test_from_settings_to_shards_scenarios_and_card(corpus: Path) -> None:
    for name, least, most in (
        ("train", 5, 5),
        ("validation", 2, 2),
        ("test", 2, 2),
        ("train_questions", 1, 5),
        ("train_narration", 1, 5),
    ):
        folder = corpus / "shards" / name
        assert not check_shards(folder)
        assert least <= len(list(read_samples(folder))) <= most, name
    scenarios = [json.loads(line) for line in (corpus / "scenarios" / "test.jsonl").read_text().splitlines()]
    assert len(scenarios) == 2 and all((corpus / "scenarios" / s["video"]).is_file() for s in scenarios)
    assert (corpus / "report.html").is_file()


def test_the_loader_would_take_all_of_it(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "lint", str(corpus / "shards" / "train"), "--realtime"]) == 0
    tokenizer = tmp_path / "tokenizer.json"
    assert main(["data", "tokenizer", str(tokenizer), str(corpus / "shards" / "train"), "--vocab-size", "600"]) == 0
    for name in ("train", "train_questions", "train_narration"):
        stage = "sft_realtime" if name == "train" else "sft_offline"
        assert (
            main(["data", "lint", str(corpus / "shards" / name), "--stage", stage, "--tokenizer", str(tokenizer), "--decode"])
            == 0
        )
    capsys.readouterr()


def test_the_same_command_again_makes_nothing(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "generate", str(corpus), "--workers", "2", *SMALL, "rows.train=5"]
    before = (corpus / "samples" / "train.jsonl").read_bytes()
    assert main(command) == 2  # other settings
    error = capsys.readouterr().err
    assert "was begun with other settings" in error and "outputs.narration: 1.0 there, 0.0 now" in error
    assert (corpus / "samples" / "train.jsonl").read_bytes() == before


def test_another_rate(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slow = tmp_path / "slow"
    assert main(["data", "generate", str(slow), "--from", str(corpus), "--reslice", "30"]) == 0
    lines = (slow / "parts" / "train" / "000000" / "rows.jsonl").read_text().splitlines()
    assert {json.loads(line)["emission_tps"] for line in lines} == {30.0}
    for words in (["--reslice", "3"], ["--from", str(corpus)], ["--reslice", "3", "--from", str(tmp_path)]):
        assert main(["data", "generate", str(tmp_path / "other"), *words]) == 2
    assert main(["data", "generate", str(tmp_path / "other"), "--reslice", "3", "--from", str(corpus), "seed=1"]) == 2
    assert not (tmp_path / "other").exists() and "moss: error: " in capsys.readouterr().err


def test_print_config_and_dry_run_write_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["data", "generate", str(out), "--print-config", "rows.train=7"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["rows"]["train"] == 7
    assert main(["data", "generate", str(out), "--dry-run", "rows.train=7"]) == 0
    assert "train 7" in capsys.readouterr().out and not out.exists()


def test_a_printed_configuration_is_an_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "generate", "x", "--config", "captions", "--print-config"]) == 0
    (tmp_path / "mine.yaml").write_text(capsys.readouterr().out)
    assert load_settings(str(tmp_path / "mine.yaml"), []) == load_settings("captions", [])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rows.trian=3"], "trian"),
        (["rows.train=many"], "rows.train"),
        (["rows.train=-1"], "rows.train is -1"),
        (["rows=3"], "rows"),
        (["behaviours.shout=1"], "behaviours.shout is unknown"),
        (["behaviours={narrate: -1}"], "behaviours.narrate is -1"),
        (["behaviours={narrate: 0}"], "behaviours holds no weight above 0"),
        (["languages={fr: 1}"], "languages.fr is unknown"),
        (["fps=0"], "fps is 0"),
        (["emission.mode=fast"], "emission mode is 'fast'"),
        (["emission.rates=[0]"], "emission rates are [0"),
        (["world.level=9"], "level"),
        (["world.knobs={noise: 3}"], "noise"),
        (["world.variants={melted: 1}"], "world.variants.melted is unknown"),
        (["author=poet"], "author is 'poet'"),
        (["author=model"], "model.base_url"),
        (["author_options={mood: good}"], "author_options.mood is unknown"),
        (["tokenizer=/none/tokenizer.json"], "/none/tokenizer.json"),
        (["gates.silence_ratio=[0.9, 0.1]"], "gates.silence_ratio is [0.9, 0.1]"),
        (["gates.near_duplicates=0.2"], "gates.near_duplicates is 0.2"),
        (["gates.judge=9"], "gates.judge is 9"),
        (["gates.judge=2"], "judge"),
        (["source.kind=captions"], "source.path is empty"),
        (["source.kind=radio", "source.path=x"], "source.kind is 'radio'"),
        (["source.kind=captions", "source.path=/none/at/all.json"], "/none/at/all.json"),
        (["source.kind=videos", "source.path=x"], "set author=model"),
        (["rows={train: 0, validation: 0, test: 0}"], "nothing to make"),
        (["seed=[1"], "is not YAML"),
        (["seed.more=1"], "seed is {'more': 1}"),
        (["--workers", "0"], "--workers is 0"),
        (["--config", "nowhere"], "known names: captions, demo, events"),
    ],
)
def test_one_sentence_and_nothing_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    out = tmp_path / "out"
    assert main(["data", "generate", str(out), "--workers", "1", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("moss: error: ") and error.count("\n") == 1 and "Traceback" not in error
    assert not out.exists()


@pytest.mark.parametrize("content", ["- a\n- b\n", "rows: [", "rows: {train: 3}\nrow: 1\n"])
def test_files_of_settings_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    (tmp_path / "mine.yaml").write_text(content)
    assert main(["data", "generate", str(tmp_path / "out"), "--config", str(tmp_path / "mine.yaml")]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", NAMES)
def test_every_file_of_settings_loads_and_may_be_pointed_elsewhere(name: str) -> None:
    config = load_settings(name, ["source.path=/data/mine", "source.media_root=/videos"])
    assert config.source.kind in ("world", "videos", *READERS) and config.source.path == "/data/mine"
    assert name in ("world", "demo") or config.source.kind == name


def test_annotations_of_every_kind_become_corpora_with_the_files_of_settings(tmp_path: Path) -> None:
    from tests.data_pipeline.helpers import make_video

    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "v1.mp4").write_bytes(make_video(list(range(20, 140, 10)), rate=1, width=32, height=32))
    (tmp_path / "captions.json").write_text(
        '{"v1": {"duration": 12, "timestamps": [[0, 2.5], [4, 6], [7, 9]], "sentences": ["a dog runs", "it stops", "it eats"]}}'
    )
    (videos / "v1.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nhello there\n\n2\n00:00:05,000 --> 00:00:07,000\ngoodbye\n")
    (tmp_path / "actions.csv").write_text("video,duration,begin,end,label\nv1,12,1,2,opens a door\nv1,12,5,7,closes it\n")
    (tmp_path / "questions.jsonl").write_text(
        '{"video": "v1", "duration": 12, "question": "who comes?", "answer": "a cat", "evidence": [4, 6]}\n'
    )
    sources = {"captions": "captions.json", "subtitles": "videos", "events": "actions.csv", "qa": "questions.jsonl"}
    for name, path in sources.items():
        out = tmp_path / name
        places = [f"source.path={tmp_path / path}", f"source.media_root={videos}", "rows.shares={train: 1}", "rows.per_video=6"]
        assert main(["data", "generate", str(out), "--config", name, "--workers", "1", *places, "outputs.card=false"]) == 0
        samples = list(read_samples(out / "shards" / "train"))
        assert samples, name
    assert list(read_samples(tmp_path / "qa" / "shards" / "train_questions"))


def test_the_page_names_every_setting() -> None:
    text = PAGE.read_text(encoding="utf-8")

    def names(config: object, path: str = "") -> list[str]:
        found = []
        for field in dataclasses.fields(config):  # type: ignore[arg-type]
            value = getattr(config, field.name)
            found += names(value, f"{path}{field.name}.") if dataclasses.is_dataclass(value) else [path + field.name]
        return found

    missing = [
        name for name in names(BuildConfig()) if f"`{name}`" not in text and f"| `{name.removeprefix('gates.')}` |" not in text
    ]
    assert not missing
