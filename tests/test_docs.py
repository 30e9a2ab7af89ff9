"""Pages keep up with the software: links, commands, their options and configuration choices that they name exist."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import importlib.util
import re
import shlex
import typing
from pathlib import Path
from typing import Any

import pytest

from inference import offline_infer, realtime_offline_infer, realtime_streaming_infer
from moss_train.cli.main import COMMANDS, parse_words
from moss_train.config.compose import choices, compose, conf_dir
from moss_train.config.schema import RunConfig
from tests.pages import commands

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md"), *REPOSITORY.glob("launch/*.md")])
GROUPS = [p.name for p in conf_dir().iterdir() if p.is_dir()]
OWN_GROUPS = ("data=mine", "launcher=my_cluster")
"""Choices that pages give as examples of a reader's own files."""


NO_SETTINGS = ("data.json", "train.sbatch", "attention.paged_attention", "train.stpes")
"""Files, a function, and the example of a setting that is refused."""

INFERENCE_PROGRAMS = {module.__name__: module for module in (offline_infer, realtime_offline_infer, realtime_streaming_infer)}


def _ids(paths: list[Path]) -> list[str]:
    return [str(p.relative_to(REPOSITORY)) for p in paths]


@pytest.mark.parametrize("page", PAGES, ids=_ids(PAGES))
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = [t.split("#")[0] for t in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in t]
    assert not [t for t in targets if t and not (page.parent / t).exists()]


@pytest.mark.parametrize("page", PAGES, ids=_ids(PAGES))
def test_commands_and_choices_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"(?:^|`)moss ([a-z]+)", text, flags=re.MULTILINE))
    assert named <= set(COMMANDS)
    for group, name in re.findall(r"\b([a-z]+)=([a-z0-9_]+)\b", text):
        if group in GROUPS and f"{group}={name}" not in OWN_GROUPS:
            assert name in choices(group), f"{group}={name}"


def test_readme_lists_every_command() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert not [name for name in COMMANDS if f"`moss {name}" not in text]


def test_configuration_page_lists_every_choice() -> None:
    text = (REPOSITORY / "docs" / "configuration.md").read_text(encoding="utf-8")
    rows = {m.group(1): m.group(0) for m in re.finditer(r"^\| `(\w+)` \|.*$", text, flags=re.MULTILINE)}
    assert set(rows) == set(GROUPS)
    for group in set(GROUPS) - {"demo", "experiment"}:  # recipes are in the tables of docs/recipes.md
        assert not [name for name in choices(group) if f"`{name}`" not in rows[group]]


def test_readme_states_the_mixtures_that_the_stages_have() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for stage in ("pt1", "pt2", "sft_offline", "sft_realtime"):
        mixture = compose([f"stage={stage}"]).data.mixture
        row = next(line for line in text.splitlines() if line.startswith(f"| `{stage}` |"))
        shares = [int(n) for n in re.findall(r"(\d+) [/%]", row)]
        assert shares == [round(100 * mixture[m]) for m in ("text", "image", "video", "realtime")]


def _parser(words: list[str]) -> tuple[argparse.ArgumentParser, list[str]]:
    """The parser of a command line, and the words that it is given."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    if words[0] == "moss":
        module = importlib.import_module(COMMANDS[words[1]].module)
        module.add_arguments(parser)
        return parser, getattr(module, "complete", list)(words[2:])
    if words[2] in INFERENCE_PROGRAMS:
        return INFERENCE_PROGRAMS[words[2]].build_parser(), words[3:]
    importlib.import_module("inference.benchmark.command").add_arguments(parser)
    return parser, words[3:]


def _complaint(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What the parser says against a command line; nothing where it takes it."""
    parser, arguments = _parser(words)
    try:
        parse_words(parser, arguments)
    except (SystemExit, argparse.ArgumentError) as error:
        return f"{shlex.join(words)}: {capsys.readouterr().err or error}"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=_ids(PAGES))
def test_commands_in_blocks_parse(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = ("moss", *INFERENCE_PROGRAMS, "inference.benchmark")
    lines = list(commands(page))
    assert not [words for words in lines if words[0] == "python" and importlib.util.find_spec(words[2]) is None]
    complaints = [_complaint(words, capsys) for words in lines if words[0] in known or words[2] in known]
    assert not [complaint for complaint in complaints if complaint]


@pytest.mark.parametrize("page", PAGES, ids=_ids(PAGES))
def test_settings_in_blocks_compose(page: Path) -> None:
    """Every group, key and value that a command line of a page sets; groups of the reader's own are left out."""
    for words in commands(page):
        if words[0] != "moss" or words[1] not in ("train", "launch", "plan", "data"):
            continue
        parser, arguments = _parser(words)
        settings = [word for word in getattr(parse_words(parser, arguments), "overrides", []) if word not in OWN_GROUPS]
        if any(word.startswith(("stage=", "demo=")) for word in settings):
            assert compose(settings).stage.name, words


def _is_setting(name: str) -> bool:
    """Whether `group.field` is one; what is below a mapping, such as `data.mixture.video`, is the reader's."""
    kind: Any = RunConfig
    for part in name.split("."):
        hints = typing.get_type_hints(kind) if dataclasses.is_dataclass(kind) else None
        if hints is None:
            return True
        if part not in hints:
            return False
        kind = hints[part]
    return True


def test_settings_that_pages_name_exist() -> None:
    """In running text too; decisions and changes tell of what was."""
    groups = {field.name for field in dataclasses.fields(RunConfig)}
    unknown = []
    for page in PAGES:
        if page.parent.name == "decisions" or page.name == "CHANGELOG.md":
            continue
        named = re.findall(r"(?<![\w./-])([a-z_]+(?:\.[a-z_0-9]+)+)(?==|`)", page.read_text(encoding="utf-8"))
        unknown += [(page.name, n) for n in named if n.split(".")[0] in groups and n not in NO_SETTINGS and not _is_setting(n)]
    assert not unknown


def test_every_option_of_inference_is_on_a_page() -> None:
    """One of the two spellings, in the pages on inference."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES if page.parent.name in ("docs", "benchmarks"))
    written = {option.replace("-", "_") for option in re.findall(r"--[a-z][\w-]*", text)}
    parsers = [module.build_parser() for module in INFERENCE_PROGRAMS.values()]
    for words in (["moss", "bench", "inference"], ["moss", "verify", "precision"], ["moss", "verify", "vision"]):
        parser, _ = _parser(words)
        for word in words[2:]:
            parser = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction)).choices[word]
        parsers.append(parser)
    options = {a.option_strings[0] for parser in parsers for a in parser._actions if a.option_strings}
    assert not sorted(option for option in options - {"-h"} if option.replace("-", "_") not in written)
