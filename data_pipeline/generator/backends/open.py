"""Opening a backend from plain settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data_pipeline.generator.backends.endpoint import EndpointBackend
from data_pipeline.generator.backends.settings import read_settings


def open_backend(values: Mapping[str, Any]) -> EndpointBackend:
    """The endpoint that settings describe (`settings.BackendConfig`); nothing is sent yet.

    Raises:
        InputError: a setting is unknown, missing or out of its range, or the key is not set.
    """
    return EndpointBackend(read_settings(values))
