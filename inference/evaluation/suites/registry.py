"""All suites by name; a module is imported when its suite is asked for."""

from __future__ import annotations

import importlib

from inference.evaluation.suites.suite import Suite
from model.errors import InputError

MODULES = {
    "world": "inference.evaluation.suites.world",
    "system": "inference.evaluation.suites.system",
    "streamingbench": "inference.evaluation.suites.streamingbench",
    "ovobench": "inference.evaluation.suites.ovobench",
    "proactive_videoqa": "inference.evaluation.suites.proactive_videoqa",
    "omnimmi": "inference.evaluation.suites.omnimmi",
    "videollm_online": "inference.evaluation.suites.videollm_online",
    "svbench": "inference.evaluation.suites.svbench",
    "livesports_cc": "inference.evaluation.suites.livesports_cc",
    "etbench": "inference.evaluation.suites.etbench",
    "lmms": "inference.evaluation.suites.lmms",
}
"""Each module has `SUITE`."""

EVERYWHERE = ("system",)
"""Suites that score every push trace, whatever suite its scenario names."""


def get_suite(name: str) -> Suite:
    """The suite of that name; the empty name means `world`.

    Raises:
        InputError: there is none.
    """
    found = MODULES.get(name or "world")
    if found is None:
        raise InputError(f"suite {name!r} is not known; use one of {', '.join(MODULES)}")
    suite: Suite = importlib.import_module(found).SUITE
    return suite
