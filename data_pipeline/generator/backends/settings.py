"""How an endpoint is asked: all settings with their units, checked when they are made."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from model.errors import InputError

FORMATS = ("json_schema", "json_object", "text")
"""Ways to ask for JSON, the strictest first."""


@dataclass(frozen=True, kw_only=True)
class BackendConfig:
    """An endpoint and the limits that it is asked within."""

    base_url: str
    """Such as `http://localhost:8000/v1`."""
    model: str
    """Its name there."""
    api_key_env: str = ""
    """Name of the environment variable that holds the key; empty for an endpoint that needs none."""
    concurrency: int = 8
    """Requests under way at the same time."""
    requests_per_minute: float = 0.0
    """0 means any number."""
    tokens_per_minute: float = 0.0
    """Of questions and answers together; 0 means any number."""
    timeout: float = 120.0
    """Seconds from sending a request to the last byte of its answer."""
    retries: int = 5
    """Of a request that met a busy or broken endpoint."""
    wait: float = 1.0
    """Seconds before the first retry at most; twice as many before each further one, a random share of them."""
    longest_wait: float = 60.0
    """Seconds before any retry at most, whatever the endpoint asks for."""
    budget_tokens: float = 0.0
    """Tokens that may be spent; 0 means any number."""
    budget_dollars: float = 0.0
    """Needs `prices`; 0 means any amount."""
    prices: dict[str, float] = field(default_factory=dict)
    """`input` and `output`: dollars for a million tokens."""
    image_tokens: int = 300
    """Of a picture, for estimates before the endpoint says how many it counts."""
    temperature: float | None = None
    """Of all requests; None leaves each role its own."""
    seed: int = 0
    """Added to that of each request: another one gives other answers."""
    send_seed: bool = True
    """Whether the endpoint is told the seed; some reject it."""
    max_tokens: int = 0
    """Most tokens of an answer; 0 leaves each role its own."""
    response_format: str = "json_schema"
    """One of `FORMATS`; one that the endpoint rejects gives way to the next."""
    record: str = ""
    """File to which answers are added, for `replay`."""

    def __post_init__(self) -> None:
        url = urlsplit(self.base_url)
        if url.scheme not in ("http", "https") or not url.netloc:
            raise InputError(
                f"model.base_url is {self.base_url!r}; give the address of an endpoint, such as http://localhost:8000/v1"
            )
        if not self.model:
            raise InputError("model.model is empty; give the name by which the endpoint knows the model")
        for name in ("requests_per_minute", "tokens_per_minute", "budget_tokens", "budget_dollars", "wait"):
            self._check(name, 0, "0 or more")
        for name in ("timeout", "longest_wait"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"model.{name} is {getattr(self, name)}; it must be a number of seconds above 0")
        for name, least in (("concurrency", 1), ("retries", 0), ("image_tokens", 0), ("max_tokens", 0)):
            self._check(name, least, f"at least {least}")
        if self.response_format not in FORMATS:
            raise InputError(f"model.response_format is {self.response_format!r}; use one of {', '.join(FORMATS)}")
        for name, price in self.prices.items():
            if name not in ("input", "output") or not 0 <= price < math.inf:
                raise InputError(f"model.prices.{name} is {price}; give input and output, dollars for a million tokens")
        if self.budget_dollars and set(self.prices) != {"input", "output"}:
            raise InputError(
                "model.budget_dollars needs model.prices.input and model.prices.output, dollars for a million tokens"
            )

    def _check(self, name: str, least: float, told: str) -> None:
        if not least <= getattr(self, name) < math.inf:
            raise InputError(f"model.{name} is {getattr(self, name)}; it must be {told}")

    def key(self) -> str:
        """The key of the endpoint; a word that means nothing where it needs none.

        Raises:
            InputError: the environment lacks it.
        """
        if not self.api_key_env:
            return "none"
        key = os.environ.get(self.api_key_env, "")
        if not key:
            raise InputError(f"model.api_key_env names {self.api_key_env}, which is not set; export it")
        if not (key.isascii() and key.isprintable()) or key != key.strip():
            raise InputError(
                f"model.api_key_env names {self.api_key_env}, whose value holds characters that no key has, such as accents, "
                "spaces or line ends; export the key alone"
            )
        return key


_TYPES: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}


def read_settings(values: Mapping[str, Any]) -> BackendConfig:
    """Settings from plain values.

    Raises:
        InputError: a setting is unknown, missing, of the wrong type or out of its range; names it.
    """
    fields = {one.name: one for one in dataclasses.fields(BackendConfig)}
    for name, value in values.items():
        if name not in fields:
            raise InputError(f"model.{name} is unknown; use some of {', '.join(fields)}")
        _check_type(f"model.{name}", value, str(fields[name].type))
    for name in ("base_url", "model"):
        if name not in values:
            raise InputError(
                f"model.{name} is missing; give the endpoint's address (base_url) and the model's name there (model)"
            )
    given: dict[str, Any] = {name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()}
    return BackendConfig(**given)


def _check_type(name: str, value: Any, type_name: str) -> None:
    if type_name.startswith("dict"):
        if not isinstance(value, Mapping) or not all(_is(v, (int, float)) for v in value.values()):
            raise InputError(f"{name} is {value!r}; give numbers by name")
        return
    if value is None and "None" in type_name:
        return
    allowed = _TYPES[type_name.split(" ")[0]]
    if not _is(value, allowed):
        told = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false"}[type_name.split(" ")[0]]
        raise InputError(f"{name} is {value!r}; it must be {told}")


def _is(value: Any, allowed: tuple[type, ...]) -> bool:
    return isinstance(value, allowed) and (bool in allowed or not isinstance(value, bool))
