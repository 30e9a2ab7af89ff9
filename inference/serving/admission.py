"""Who may come in: a session is let in when the most that it can ever hold is free."""

from __future__ import annotations

from dataclasses import dataclass

from inference.cache.policies.policy import PageBounds
from inference.cache.store import KVStore
from model.errors import InputError


class AdmissionError(InputError):
    """A session does not fit, now or ever."""


@dataclass(frozen=True)
class Refusal:
    """Why a session does not fit."""

    reason: str
    ever: bool
    """Whether it would fit into an empty memory."""


class KVBudget:
    """Pages that sessions have been promised.

    Args:
        row_pages: pages of text positions of all sessions together.
        frame_pages: pages of frames of all sessions together.
    """

    def __init__(self, row_pages: int, frame_pages: int) -> None:
        for name, value in (("row_pages", row_pages), ("frame_pages", frame_pages)):
            if value < 1:
                raise InputError(f"{name} of the budget is {value}; it must be at least 1")
        self.row_pages, self.frame_pages = row_pages, frame_pages
        self.promised_rows = self.promised_frames = 0

    @classmethod
    def of(cls, store: KVStore) -> KVBudget:
        """All pages of a store of fixed size.

        Raises:
            InputError: it grows, so that nobody can say when it is full.
        """
        if not (store.self_pool.fixed and store.cross_pool.fixed):
            raise InputError("the cache may grow without bound; give the budget in pages, or make the cache fixed")
        return cls(store.self_pool.pages - 1, store.cross_pool.pages - 1)

    def refusal(self, need: PageBounds) -> Refusal | None:
        """Why `need` cannot be promised now; None where it can."""
        for what, wanted, promised, total in (
            ("rows", need.row_pages, self.promised_rows, self.row_pages),
            ("frames", need.frame_pages, self.promised_frames, self.frame_pages),
        ):
            if wanted > total:
                return Refusal(
                    f"a session that may hold {wanted} pages of {what} does not fit into {total}; "
                    "bound it by a policy (--cross_policy, --text_window) or give the cache more memory",
                    ever=False,
                )
            if wanted > total - promised:
                return Refusal(
                    f"a session that may hold {wanted} pages of {what} does not fit: {promised} of {total} are promised to "
                    "others; try again when one of them has ended",
                    ever=True,
                )
        return None

    def promise(self, need: PageBounds) -> None:
        """Take `need` out of what is free.

        Raises:
            AdmissionError: it is not free.
        """
        if refusal := self.refusal(need):
            raise AdmissionError(refusal.reason)
        self.promised_rows += need.row_pages
        self.promised_frames += need.frame_pages

    def give_back(self, need: PageBounds) -> None:
        """A session that was promised `need` has ended."""
        self.promised_rows -= need.row_pages
        self.promised_frames -= need.frame_pages
