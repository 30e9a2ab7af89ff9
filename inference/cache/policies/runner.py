"""Applies a policy to sessions: decisions become changes of tables and, rarely, passes over keys."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from inference.cache.archive import look_of, most_alike, put_away
from inference.cache.frame_page import FramePage, PageKind
from inference.cache.policies.offload import Offload
from inference.cache.policies.operations import DropFrames, KeepClassTokens, Operation, PoolFrames, PutAway
from inference.cache.policies.policy import CachePolicy
from inference.cache.pooling import keep_class_tokens, pool_batch
from inference.cache.rekey import KeyMaker, renumber
from inference.cache.session_cache import SessionCache
from inference.cache.store import KVStore
from model.errors import InputError

if TYPE_CHECKING:
    from inference.model.video_mllama import VideoMllama


def run_policy(policy: CachePolicy, store: KVStore, model: VideoMllama) -> PolicyRunner | None:
    """What `KVStore.new_cache` takes for a policy; None where it keeps everything.

    Raises:
        InputError: as `PolicyRunner`.
    """
    if policy == CachePolicy():
        return None
    return PolicyRunner(policy, store, KeyMaker(model.config, [layer.key_norm for layer in model.cross_layers]))


class PolicyRunner:
    """One policy, any number of sessions; keeps nothing of them.

    Args:
        policy: what to keep.
        store: where the sessions' pages are.
        maker: makes keys anew.

    Raises:
        InputError: the policy needs unrotated keys that the store does not keep, or its limits contradict each other.
    """

    def __init__(self, policy: CachePolicy, store: KVStore, maker: KeyMaker) -> None:
        self.policy, self.maker = policy, maker
        policy.check(store.self_pool.page_rows, store.cross_pool.page_rows)
        if policy.needs_raw_keys and not (store.self_pool.shape.raw_keys and store.cross_pool.shape.raw_keys):
            raise InputError(
                f"the policy {policy.cross.spell()} with position_limit {policy.position_limit} needs unrotated keys; "
                "make the engine with raw_keys=True"
            )

    def settle(self, cache: SessionCache) -> None:
        """Forget what a step has made too old. Ends with nothing left to do."""
        while operation := self.policy.cross.decide(cache.pages, cache.cross_pool.page_rows):
            self._apply(cache, operation)
        if self.policy.text is not None:
            first, pages = self.policy.text.excess_pages(cache.length, cache.self_pool.page_rows)
            if pages:
                cache.drop_rows(first, pages)
        limit = self.policy.renumber_at
        if limit is not None and cache.next_position > limit:
            renumber(cache, self.maker)

    def prompt_boundary(self, cache: SessionCache) -> None:
        """Exchange what the last prompt fetched for what this one needs."""
        policy = self.policy.cross
        if isinstance(policy, Offload) and (operation := policy.forget(cache.pages)):
            self._apply(cache, operation)
        recall = policy.recall(cache.pages)
        if recall is None or not cache.archive:
            return
        newest = look_of(cache.cross_pool, cache.cross_table[cache.frames - 1])
        chosen = [cache.archive[i] for i in most_alike(cache.archive, newest, recall.count)]
        table = cache.cross_pool.take(len(chosen))
        for page, frame in zip(table, chosen, strict=True):
            cache.cross_pool.store_page(page, frame.content)
        pages = [dataclasses.replace(frame.page, kind=PageKind.RECALLED) for frame in chosen]
        stale = any(frame.renumberings != cache.renumberings for frame in chosen)
        oldest = cache.pages[recall.begin].positions[0]
        cache.insert_frames(recall.begin, table, pages)
        if stale:
            # Positions from before a renumbering mean nothing now: these frames stand right before the oldest kept one.
            before = [oldest - 1 + (i + 1) / (len(chosen) + 1) for i in range(len(chosen))]
            after = [page.positions[-1] for page in cache.pages]
            renumber(cache, self.maker, [*after[: recall.begin], *before, *after[recall.begin + len(chosen) :]])

    def _apply(self, cache: SessionCache, operation: Operation) -> None:
        if isinstance(operation, DropFrames):
            cache.drop_frames(operation.begin, operation.count)
        elif isinstance(operation, PoolFrames):
            pool_batch(cache, self.maker, operation.begin)
        elif isinstance(operation, KeepClassTokens):
            keep_class_tokens(cache, self.maker, operation.begin)
        elif isinstance(operation, PutAway):
            _put_away(cache, operation)


def _put_away(cache: SessionCache, operation: PutAway) -> None:
    end = operation.begin + operation.count
    found: list[tuple[int, FramePage]] = list(
        zip(cache.cross_table[operation.begin : end], cache.pages[operation.begin : end], strict=True)
    )
    new = [put_away(cache.cross_pool, page, stands_for, cache.renumberings) for page, stands_for in found]
    cache.archive = (*cache.archive, *new)[-operation.capacity :]
    cache.drop_frames(operation.begin, operation.count)
