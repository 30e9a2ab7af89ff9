"""Messages of the protocol that are no text of the model; they are not in any vocabulary, silence excepted."""

from __future__ import annotations

from data_pipeline.text.tokenizer import SILENCE as SILENCE

ROUND_START = "<|round_start|>"
"""A prompt was taken in: what follows answers it."""
ROUND_END = "<|round_end|>"
"""The answer is complete."""
DONE = "[DONE]"
"""The generator ended."""
ERROR = "[ERROR]"
"""Begins the message of what went wrong; the generator of real-time speech ends with it, that of answers goes on."""


def is_end(message: str) -> bool:
    """Whether a reader of real-time fragments is through."""
    return message in (DONE, ROUND_END) or message.startswith(ERROR)
