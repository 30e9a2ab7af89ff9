"""Pages keep up with the software: links, commands and configuration choices that they name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from moss_train.cli.main import COMMANDS
from moss_train.config.compose import choices, compose, conf_dir

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md"), *REPOSITORY.glob("launch/*.md")])
GROUPS = [p.name for p in conf_dir().iterdir() if p.is_dir()]


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
        if group in GROUPS and f"launcher={name}" not in ("launcher=my_cluster",) and f"{group}={name}" != "data=mine":
            assert name in choices(group), f"{group}={name}"


def test_readme_lists_every_command() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert not [name for name in COMMANDS if f"`moss {name}" not in text]


def test_configuration_page_lists_every_choice() -> None:
    text = (REPOSITORY / "docs" / "configuration.md").read_text(encoding="utf-8")
    rows = {m.group(1): m.group(0) for m in re.finditer(r"^\| `(\w+)` \|.*$", text, flags=re.MULTILINE)}
    assert set(rows) == set(GROUPS)
    for group in set(GROUPS) - {"demo"}:
        assert not [name for name in choices(group) if f"`{name}`" not in rows[group]]


def test_readme_states_the_mixtures_that_the_stages_have() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for stage in ("pt1", "pt2", "sft_offline", "sft_realtime"):
        mixture = compose([f"stage={stage}"]).data.mixture
        row = next(line for line in text.splitlines() if line.startswith(f"| `{stage}` |"))
        shares = [int(n) for n in re.findall(r"(\d+) [/%]", row)]
        assert shares == [round(100 * mixture[m]) for m in ("text", "image", "video", "realtime")]
