"""The texts of the prompts, one file for each role."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

VERSION = 1
"""Grows whenever the way in which answers are read changes; the texts have a digest of their own."""
FOLDER = Path(__file__).parent / "prompts"
ROLES = ("normalise", "changes", "plan", "answer", "style", "judge", "blind", "seen", "same")


@lru_cache(maxsize=16)
def prompt(role: str) -> str:
    """The system text of a role."""
    return (FOLDER / f"{role}.txt").read_text(encoding="utf-8").strip()


@lru_cache(maxsize=1)
def prompts_digest() -> str:
    """First digits of the SHA-256 of all prompts and schemas: other texts make other dialogues."""
    from data_pipeline.generator.models.schemas import SCHEMAS

    texts = [f"{role}\n{prompt(role)}\n{sorted(SCHEMAS[role].items())!r}" for role in ROLES]
    return hashlib.sha256("\n\n".join(texts).encode()).hexdigest()[:12]
