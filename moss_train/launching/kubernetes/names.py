"""Names and quantities as Kubernetes takes them, checked before a cluster sees them."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

from model.errors import InputError
from moss_train.config.schema import RunConfig

LONGEST = 45
"""Characters of a job's name: a pod is NAME-node-0-1234-abcde, and its host name may have 63."""
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(rf"{_LABEL.pattern}(\.{_LABEL.pattern})*")
_QUANTITY = re.compile(r"\d+(\.\d+)?(m|k|[MGTPE]|[KMGTPE]i)?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def job_name(config: RunConfig) -> str:
    """The job's name: `launcher.kubernetes.name`, else one made of the stage and the run folder's name.

    Two run folders whose names differ give two names: where letters had to be left out, a number made of all of them is added.

    Raises:
        InputError: the given name is none that a job and its pods can have.
    """
    given = config.launcher.kubernetes.name
    if given:
        if not _LABEL.fullmatch(given) or given[0].isdigit() or len(given) > LONGEST:
            raise InputError(
                f"launcher.kubernetes.name is {given!r}; write small letters, digits and '-', a letter first, at most {LONGEST}"
            )
        return given
    stage, folder = config.stage.name, Path(config.run_dir).name
    words = f"moss-{folder if folder.startswith(stage) else f'{stage}-{folder}'}".lower()
    name = re.sub(r"[^a-z0-9]+", "-", words).strip("-")
    if len(name) > LONGEST or not re.fullmatch(r"[a-z0-9]+([-_.][a-z0-9]+)*", words):
        number = f"{zlib.crc32(words.encode()):08x}"
        name = f"{name[: LONGEST - 9].rstrip('-')}-{number}"
    return name


def check_object_name(field: str, name: str) -> str:
    """The name of an object that is there already: a claim, a secret, a service account.

    Raises:
        InputError: no object can have it.
    """
    if not _SUBDOMAIN.fullmatch(name) or len(name) > 253:
        raise InputError(f"{field} is {name!r}, which no object can be called; write small letters, digits, '-' and '.'")
    return name


def check_namespace(name: str) -> str:
    """The namespace.

    Raises:
        InputError: no namespace can be called so.
    """
    if not _LABEL.fullmatch(name) or len(name) > 63:
        raise InputError(f"launcher.kubernetes.namespace is {name!r}; write small letters, digits and '-', at most 63")
    return name


def check_quantity(field: str, value: str) -> str:
    """An amount of a resource, such as 96, 1500m or 800Gi.

    Raises:
        InputError: Kubernetes would not read it.
    """
    if not _QUANTITY.fullmatch(value):
        raise InputError(f"{field} is {value!r}; write a number with m, k, M, G, T, Ki, Mi, Gi or Ti behind it, or with nothing")
    return value


def check_variable(name: str) -> str:
    """The name of an environment variable.

    Raises:
        InputError: a shell could not read it.
    """
    if not _VARIABLE.fullmatch(name):
        raise InputError(f"launcher.env has {name!r}; write letters, digits and '_', no digit first")
    return name
