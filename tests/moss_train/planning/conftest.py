"""The decoder of one rank, as the model's own tests build it."""

from __future__ import annotations

from tests.model.conftest import build_decoder as build_decoder
from tests.model.conftest import solo as solo
