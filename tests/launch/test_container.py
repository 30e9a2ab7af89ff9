"""Commands in containers: what is mounted, what is passed on, and that real processes of the same words start."""

from __future__ import annotations

import copy
import functools
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from model.errors import InputError
from moss_train.config.cluster import ContainerConfig
from moss_train.config.compose import compose
from moss_train.config.schema import RunConfig
from moss_train.launching.container import mounts_of, srun_options, torchrun_command, wrap


@functools.cache
def _composed() -> RunConfig:
    return compose(["stage=pt1", "launcher=slurm"])


def _config(runtime: str, *mounts: str, run_dir: str = "runs/x", cache: str = "", device: str = "auto") -> RunConfig:
    config = copy.deepcopy(_composed())
    config.run_dir, config.device, config.launcher.cache.folder = run_dir, device, cache
    config.launcher.env = {"OMP_NUM_THREADS": "1", "NCCL_DEBUG": "INFO"}
    config.launcher.container = ContainerConfig(runtime=runtime, image="moss.sif", mounts=list(mounts))
    return config


def _pairs(words: list[str], option: str) -> list[str]:
    return [after for word, after in itertools.pairwise(words) if word == option]


def test_without_a_container_and_with_pyxis_the_command_is_as_it_was() -> None:
    for runtime in ("none", "pyxis"):
        assert wrap(["moss", "train"], _config(runtime), "/work") == ["moss", "train"]
    assert srun_options(_config("none"), "/work") == []
    assert srun_options(_config("docker"), "/work") == []


def test_pyxis_gets_image_mounts_and_names() -> None:
    config = _config("pyxis", "/data", "/a:/b:ro", run_dir="/shared/run")
    assert srun_options(config, "/work") == [
        "--container-image=moss.sif",
        "--container-mounts=/work:/work,/shared/run:/shared/run,/data:/data,/a:/b:ro",
        "--container-workdir=/work",
        "--container-env=OMP_NUM_THREADS,NCCL_DEBUG",
    ]


def test_apptainer() -> None:
    words = wrap(["moss", "train", "run_dir=a b"], _config("apptainer"), "/work")
    assert words[:3] == ["apptainer", "exec", "--nv"]
    assert words[-4:] == ["moss.sif", "moss", "train", "run_dir=a b"]
    assert _pairs(words, "--bind") == ["/work:/work"]
    assert _pairs(words, "--pwd") == ["/work"]
    assert "--nv" not in wrap(["true"], _config("apptainer", device="cpu"), "/work")


def test_docker_passes_names_and_no_values() -> None:
    environment = {
        "NCCL_IB_HCA": "mlx5",
        "WANDB_API_KEY": "secret",
        "NODE_RANK": "1",
        "SLURM_JOB_ID": "7",
        "PATH": "/bin",
        "HOME": "/nobody",
    }
    words = wrap(["moss", "train"], _config("docker", cache="/nvme/moss"), "/work", environment=environment)
    assert words[:3] == ["docker", "run", "--rm"]
    assert words[-3:] == ["moss.sif", "moss", "train"]
    assert _pairs(words, "-v") == ["/work:/work", "/nvme/moss:/nvme/moss"]
    passed = _pairs(words, "-e")
    assert {"NCCL_IB_HCA", "WANDB_API_KEY", "NODE_RANK", "SLURM_JOB_ID", "OMP_NUM_THREADS"} <= set(passed)
    assert not {"PATH", "HOME"} & set(passed)
    assert "secret" not in " ".join(words)
    assert _pairs(words, "--gpus") == ["all"]
    assert "--gpus" not in wrap(["true"], _config("docker", device="cpu"), "/work")


def test_mounts_are_there_once() -> None:
    inside = mounts_of(_config("docker", "/work", "/d:/d", run_dir="/work/runs/x"), Path("/work"))
    assert inside == ["/work:/work", "/d:/d"]
    with pytest.raises(InputError, match=r"puts /other at /work, where /work is seen; choose another place"):
        mounts_of(_config("docker", "/other:/work"), Path("/work"))
    with pytest.raises(InputError, match=r"/shared/a,b cannot be seen in a container: its path has a comma or a colon"):
        mounts_of(_config("docker", run_dir="/shared/a,b"), Path("/work"))


def test_torchrun_is_found_by_the_python_of_the_image(tmp_path: Path) -> None:
    """The words that run inside, run here, from a folder that has nothing of ours."""
    config = _config("docker")
    done = subprocess.run(
        [*torchrun_command(config), "--dry-run", "stage=pt1", "run_dir=a b"],
        env=os.environ | {"PYTHON": sys.executable, "NNODES": "1"},
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert done.stdout.rstrip().endswith(r"-m moss_train.cli.main train stage=pt1 run_dir=a\ b")
    assert torchrun_command(_config("none"))[0] == "bash"


@pytest.mark.skipif(shutil.which("docker") is None, reason="no docker command")
def test_docker_knows_every_option() -> None:
    """The real client parses all of them before it looks for its daemon, or for the image."""
    words = wrap(["true"], _config("docker"), "/work")
    words = [*words[: words.index("moss.sif")], "--help"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    unknown = subprocess.run([*words[:-1], "--gpu", "x", "--help"], capture_output=True, text=True, check=False, timeout=30)
    assert unknown.returncode != 0
