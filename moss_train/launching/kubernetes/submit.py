"""Hands a manifest to the cluster, by kubectl."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from model.errors import InputError
from moss_train.config.schema import RunConfig
from moss_train.launching.folder import job_dir
from moss_train.launching.kubernetes.manifest import render_manifest


def launch_kubernetes(config: RunConfig, dry_run: bool) -> int:
    """Print the manifest, or write it to `RUN/launch/manifest.yaml` and apply it.

    The run folder is the pods'. Where this machine does not see the folder that it lies in, the manifest goes to kubectl alone.

    Returns:
        The exit code: 0, or kubectl's.

    Raises:
        InputError: as `render_manifest`; kubectl is missing.
    """
    from moss_train.checkpoint.description import write_atomically

    text = render_manifest(config)
    if dry_run:
        print(text, end="")
        return 0
    if shutil.which("kubectl") is None:
        raise InputError("kubectl is not on PATH; install it and choose the cluster, or add --dry-run to see the manifest")
    if not Path(config.run_dir).parent.is_dir():
        return subprocess.run(["kubectl", "apply", "-f", "-"], input=text, text=True, check=False).returncode
    path = job_dir(config.run_dir) / "manifest.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text)
    return subprocess.run(["kubectl", "apply", "-f", str(path)], check=False).returncode
