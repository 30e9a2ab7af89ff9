"""Stages that follow one another: each a run of its own that begins with the weights of the one before."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model.errors import InputError
from moss_train.config.compose import compose
from moss_train.config.schema import RunConfig

GROUPS = ("stage", "experiment", "demo")
"""Groups whose choice can be a link of a chain."""


@dataclass(frozen=True)
class Link:
    """A run of a chain."""

    name: str
    """Of its folder below the chain's."""
    config: RunConfig


def links(
    words: Sequence[str], overrides: Sequence[str], *, extra_dir: str | Path | None = None, before: Sequence[str] = ()
) -> list[Link]:
    """Compose the runs of a chain.

    Args:
        words: one a link: `stage=pt1`, or several overrides in one word, `stage=pt2 train.steps=500`; a bare `pt1` is a stage.
        overrides: for every link. `run_dir` is the chain's folder: each run's is `run_dir/NAME`. `train.init_from` is what
            the first begins with.
        extra_dir: see `compose`.
        before: overrides that all others come after, such as `launcher=slurm`.

    Raises:
        InputError: no link, two of one name, a link that names its own run_dir or init_from, or what `compose` refuses.
    """
    root = next((word.partition("=")[2] for word in reversed(overrides) if word.startswith("run_dir=")), "")
    if not root:
        raise InputError("a chain needs run_dir=FOLDER, below which each of its runs has a folder")
    shared = [word for word in overrides if not word.startswith(("run_dir=", "train.init_from="))]
    start = [word for word in overrides if word.startswith("train.init_from=")]
    made: list[Link] = []
    for word in words:
        own = [part if "=" in part else f"stage={part}" for part in shlex.split(word)]
        for part in own:
            if part.startswith(("run_dir=", "train.init_from=")):
                raise InputError(f"the link {word!r} sets {part.partition('=')[0]}, which the chain sets; leave it out")
        name = _name(own, word)
        if name in [link.name for link in made]:
            raise InputError(f"two links are called {name!r}; their run folders would be one: name the second as link.name=OTHER")
        own = [part for part in own if not part.startswith("link.name=")]
        begin = [f"train.init_from={root}/{made[-1].name}"] if made else start
        together = [f"logging.wandb_group={Path(root).name}"]  # W&B shows the stages as one group, unless they say another
        config = compose([*before, *together, *own, *shared, *begin, f"run_dir={root}/{name}"], extra_dir=extra_dir)
        made.append(Link(name, config))
    if not made:
        raise InputError("--chain names no link; write --chain pt1 pt2, or --chain 'stage=pt1 train.steps=500' stage=pt2")
    return made


def _name(own: Sequence[str], word: str) -> str:
    values = dict(part.partition("=")[::2] for part in own)
    for key in ("link.name", *GROUPS):
        if values.get(key):
            name = values[key]
            if "/" in name:
                name = name.rpartition("/")[2]
            return name
    raise InputError(f"the link {word!r} chooses none of {', '.join(GROUPS)}; write for example stage=pt2")
