"""The built wheel carries the configuration groups and works outside a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder into which the wheel of this checkout was unpacked."""
    pytest.importorskip("hatchling", reason="the build backend is not installed; pip install -e .[dev]")
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        timeout=120,
    )
    (wheel,) = folder.glob("moss_train-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def _moss(installed: Path, cwd: Path, *args: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(installed)}
    command = [sys.executable, "-m", "moss_train.cli.main", *args]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_everything_is_inside(installed: Path) -> None:
    for folder, copied in (("conf", "moss_train/_conf"), ("launch", "moss_train/_launch")):
        tracked = subprocess.run(["git", "ls-files", folder], cwd=REPOSITORY, capture_output=True, text=True, check=False)
        names = tracked.stdout.split() or [str(p.relative_to(REPOSITORY)) for p in (REPOSITORY / folder).rglob("*.yaml")]
        assert names
        for name in names:
            assert (installed / copied / Path(name).relative_to(folder)).is_file(), name
    assert not (installed / "tests").exists()
    assert list(installed.glob("moss_train-*.dist-info/licenses/LICENSE"))
    entry = next(installed.glob("moss_train-*.dist-info/entry_points.txt")).read_text(encoding="utf-8")
    assert "moss = moss_train.cli.main:main" in entry
    assert "moss_video = inference.evaluation.lmms:MANIFEST" in entry
    published = installed / "inference" / "evaluation" / "published"
    assert (published / "reference.json").is_file()
    assert (published / "tasks" / "moss_published.yaml").is_file()


def test_commands_work_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    overview = _moss(installed, tmp_path, "--help")
    assert overview.returncode == 0, overview.stderr
    launch = _moss(installed, tmp_path, "launch", "slurm", "stage=pt2", "parallel=tp8", "--dry-run")
    assert launch.returncode == 0, launch.stderr
    assert "-m moss_train.launching.slurm_job" in launch.stdout
    torchrun = _moss(installed, tmp_path, "launch", "torchrun", "stage=pt2", "parallel=tp8", "--no-plan", "--dry-run")
    assert torchrun.returncode == 0, torchrun.stderr
    assert "-m moss_train.parallel.agent --nproc-per-node 8" in torchrun.stdout  # which torchrun.sh of the wheel has printed
    printed = _moss(installed, tmp_path, "train", "stage=pt1", "train.steps=3", "--print-config")
    assert printed.returncode == 0, printed.stderr
    assert "steps: 3" in printed.stdout
    assert not list(tmp_path.iterdir())
