"""Composes a `RunConfig` from the groups of `conf/` and `key=value` overrides, and reads and writes resolved ones.

Hydra's compose API does the composition (not `hydra.main`: under torchrun every rank would change directory and make
a run folder of its own); `moss_train.config.build` checks names and types.
"""

from __future__ import annotations

import functools
import os
import re
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from model.config import VideoMllamaConfig
from model.errors import InputError
from moss_train.config.build import build, defaults, to_plain, unknown_key
from moss_train.config.schema import MODALITIES, RunConfig

_COMPOSING = threading.Lock()  # Hydra's registries are global to the process


def conf_dir() -> Path:
    """The folder of configuration groups: the one in the wheel, else `conf/` of the checkout."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "_conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise InputError(f"no configuration groups beside {package}; install moss-train again")


def compose(overrides: Sequence[str], *, extra_dir: str | Path | None = None) -> RunConfig:
    """Compose `conf/config.yaml` with overrides such as `stage=pt2 train.steps=50`.

    Args:
        extra_dir: a folder of the user's own groups (`extra_dir/data/mine.yaml` becomes the choice `data=mine`).

    Raises:
        InputError: an override that cannot be read, an unknown group choice or key, or a value that is refused.
    """
    return from_plain(_hydra_values(list(overrides), extra_dir))


def from_plain(values: Any) -> RunConfig:
    """A checked `RunConfig` from nested plain values; its `model` becomes complete.

    Raises:
        InputError: as `compose`.
    """
    config = build(RunConfig, values)
    config.model = to_plain(build(VideoMllamaConfig, config.model, "model"))
    for modality in config.data.mixture:
        if modality not in MODALITIES:
            raise unknown_key(f"data.mixture.{modality}", MODALITIES)
    return config


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a resolved config (`RUN/config.yaml`), changed by `key=value` overrides.

    Raises:
        InputError: the file is missing, is not YAML, or holds something that a run does not know.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        content = OmegaConf.load(path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; give the config.yaml of a run folder") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read as YAML: {_first_line(error)}; give the config.yaml of a run folder") from None
    for override in overrides:
        if "=" not in override:
            raise InputError(f"override {override!r} cannot be read; write key=value")
    try:
        if not OmegaConf.is_dict(content):
            raise InputError(f"it holds {type(OmegaConf.to_container(content)).__name__}, not a group of settings")
        changed = OmegaConf.merge(content, OmegaConf.from_dotlist([o.lstrip("+") for o in overrides]))
        return from_plain(OmegaConf.to_container(changed, resolve=True))
    except (OmegaConfBaseException, yaml.YAMLError, TypeError, ValueError) as error:
        raise InputError(f"{path} with {' '.join(overrides) or 'no override'}: {_first_line(error)}") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def save_config(config: RunConfig, path: str | Path) -> None:
    """Write the resolved config as YAML; `load_config` reads it back to an equal one. Never leaves half a file."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.write_text(to_yaml(config), encoding="utf-8")
    os.replace(temporary, target)


def to_yaml(config: RunConfig) -> str:
    """The resolved config as YAML text in the order of the dataclasses."""
    return str(yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True, width=120))


def choices(group: str, extra_dir: str | Path | None = None) -> list[str]:
    """Names that `GROUP=NAME` takes."""
    folders = [conf_dir()] + ([Path(extra_dir)] if extra_dir else [])
    return sorted({p.stem for folder in folders for p in (folder / group).glob("*.yaml")})


def _schema_defaults() -> dict[str, Any]:
    """Every known key with its default: Hydra refuses overrides of any other key."""
    values = defaults(RunConfig)
    values["model"] = defaults(VideoMllamaConfig)
    values["data"]["mixture"] = dict.fromkeys(MODALITIES, 0.0)
    return values


def _hydra_values(overrides: list[str], extra_dir: str | Path | None) -> dict[str, Any]:
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if extra_dir is not None and not Path(extra_dir).is_dir():
        raise InputError(f"--conf-dir {extra_dir} is not a folder; give one that holds groups such as data/mine.yaml")
    search = [f"hydra.searchpath=[file://{Path(extra_dir).resolve()}]"] if extra_dir else []
    composed_by = _composed.__wrapped__ if search else _composed  # a user's own groups may have been written anew
    with _COMPOSING:
        try:
            composed = composed_by(conf_dir(), *overrides, *search)
            if OmegaConf.is_missing(composed, "stage") or OmegaConf.is_missing(composed.stage, "name"):
                raise InputError(f"stage is not chosen; add stage=NAME with one of {', '.join(choices('stage', extra_dir))}")
            plain = OmegaConf.to_container(composed, resolve=True)
        except (HydraException, OmegaConfBaseException) as error:
            raise _as_sentence(error, extra_dir) from None
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


@functools.lru_cache(maxsize=128)  # 0.2 s each, and benchmarks and plans ask for the same again and again
def _composed(folder: Path, *overrides: str) -> Any:
    """The groups of a folder with overrides, variables of the environment not yet put in; to be read only."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    ConfigStore.instance().store(name="schema_defaults", node=_schema_defaults())
    with warnings.catch_warnings(), initialize_config_dir(config_dir=str(folder), version_base="1.3"):
        warnings.filterwarnings("ignore", message="provider=msc", category=UserWarning)  # a plugin of Energon's storage
        return hydra_compose(config_name="config", overrides=list(overrides))


def _as_sentence(error: Exception, extra_dir: str | Path | None) -> InputError:
    """Hydra's report as one sentence that says what is allowed instead."""
    text = str(error)
    if match := re.search(r"Could not (?:find|load) '([\w/]+)/([^'/]+)'", text):
        group, name = match.groups()
        return InputError(f"{group}={name} is not known; use one of {', '.join(choices(group, extra_dir))}")
    if match := re.search(r"Could not override '([^']+)'", text):
        key = match.group(1)
        if re.search(r"\.\d+(\.|$)", key):
            return InputError(f"{key} reaches into a list; give the list whole, as in {re.split(r'[.][0-9]+', key)[0]}=[...]")
        return unknown_key(key, _siblings(key))
    if match := re.search(r"An item is already at '([^']+)'", text):
        key = match.group(1)
        return InputError(f"{key} exists already; write {key}=VALUE without the plus sign")
    return InputError(f"the configuration cannot be composed: {_first_line(error)}; overrides are written as key=value")


def _siblings(key: str) -> list[str]:
    """Keys known beside `key` in the schema."""
    node: Any = _schema_defaults()
    for part in key.split(".")[:-1]:
        if not isinstance(node, dict) or part not in node:
            return []
        node = node[part]
    if not isinstance(node, dict):
        return []
    groups = [] if "." in key else [p.name for p in conf_dir().iterdir() if p.is_dir()]
    return sorted({*node, *groups})


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.startswith("See http")]
    return " ".join(lines[:2]).rstrip(".;") if lines else type(error).__name__
