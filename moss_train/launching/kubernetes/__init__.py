"""`moss launch kubernetes`: the manifest of a run, and what its pods do. Imports no torch."""

from __future__ import annotations

from moss_train.launching.kubernetes.manifest import render_manifest
from moss_train.launching.kubernetes.submit import launch_kubernetes

__all__ = ["launch_kubernetes", "render_manifest"]
