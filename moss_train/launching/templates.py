"""Jinja templates of launch/: strict about names, values quoted for the shell by the filter `shell`."""

from __future__ import annotations

import shlex
from typing import Any

from moss_train.launching.folder import launch_dir


def render(name: str, values: dict[str, Any]) -> str:
    """Render `launch/NAME`, such as slurm/train.sbatch.j2.

    Args:
        values: what the template names; one that it names and that is not here is an error.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(launch_dir()),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters["shell"] = lambda value: shlex.quote(str(value))
    return environment.get_template(name).render(values)
