"""What a store that cannot be read looks like."""

from __future__ import annotations

from model.errors import InputError


class StorageError(InputError):
    """A remote store gave no bytes, denied them, or gave fewer than it announced.

    It says nothing about a sample: it is never entered in the quarantine ledger and always ends reading. What libraries say on
    several lines becomes one.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(" ".join(sentence.split()))


class AbsentError(StorageError):
    """The store says that there is no such file."""
