"""How a request is put, and what is left out of it for an endpoint that does not know it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from data_pipeline.generator.backends.settings import FORMATS

UNSUPPORTED = (400, 404, 415, 422, 501)
"""Statuses by which an endpoint may say that it does not know a field."""
UNCLEAR = (400, 422)
"""Those that may mean so whatever the words are."""


@dataclass(frozen=True)
class Style:
    """Fields of a request that not all endpoints know."""

    form: str = "json_schema"
    """One of `settings.FORMATS`."""
    limit: str = "max_tokens"
    """Name of the field for the most tokens of an answer."""
    temperature: bool = True
    seed: bool = True

    def limits(self, most: int, temperature: float, seed: int) -> dict[str, Any]:
        """Fields of a request beside its messages and form."""
        fields: dict[str, Any] = {self.limit: most}
        if self.temperature:
            fields["temperature"] = temperature
        if self.seed:
            fields["seed"] = seed
        return fields

    def simpler(self, status: int, told: str, proved: bool) -> Style | None:
        """What to try after a rejection, or None where there is nothing.

        Args:
            told: words of the endpoint.
            proved: whether a request of this style was answered before; then only a field that the words name is left out.
        """
        if status not in UNSUPPORTED:
            return None
        if self.limit == "max_tokens" and ("max_completion_tokens" in told or ("max_tokens" in told and not proved)):
            return dataclasses.replace(self, limit="max_completion_tokens")
        if self.temperature and "temperature" in told:
            return dataclasses.replace(self, temperature=False)
        if self.seed and "seed" in told:
            return dataclasses.replace(self, seed=False)
        following = FORMATS.index(self.form) + 1
        named = any(word in told for word in ("response_format", "json_schema", "json_object"))
        if following < len(FORMATS) and (named or (status in UNCLEAR and not proved)):
            return dataclasses.replace(self, form=FORMATS[following])
        return None
