"""What a session's cache holds, as tensors and plain values that go back bit for bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from inference.cache.archive import ArchivedFrame
from inference.cache.frame_page import FramePage, PageKind
from inference.cache.pool import KVPool, PageContent
from inference.cache.session_cache import SessionCache
from model.errors import InputError

_PARTS = ("vectors", "scales", "raw_keys")
_INTEGERS = ("length", "next_position", "frames_seen", "renumberings")


def cache_state(cache: SessionCache) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Plain values, and tensors of the host: `rows.*` and `frames.*` [pages, …] and `archive.*` of frames put away."""
    used = -(-cache.length // cache.self_pool.page_rows)
    contents = {
        "rows": [cache.self_pool.load_page(page) for page in cache.self_table[:used]],
        "frames": [cache.cross_pool.load_page(page) for page in cache.cross_table[: cache.frames]],
        "archive": [frame.content for frame in cache.archive],
    }
    tensors = {name: value for group, pages in contents.items() for name, value in _stack(group, pages).items()}
    if cache.archive:
        tensors["archive.look"] = torch.stack([frame.look for frame in cache.archive]).cpu()
    values = {name: getattr(cache, name) for name in _INTEGERS}
    return {
        **values,
        "row_positions": list(cache.row_positions),
        "pages": [_page_as_dict(page) for page in cache.pages],
        "archive": [_page_as_dict(frame.page) | {"renumberings": frame.renumberings} for frame in cache.archive],
        "pools": [_pool_as_dict(cache.self_pool), _pool_as_dict(cache.cross_pool)],
    }, tensors


def fill_cache(cache: SessionCache, values: dict[str, Any], tensors: dict[str, torch.Tensor], where: str) -> None:
    """Put a saved state into an empty cache.

    Raises:
        InputError: the pools are of another model, precision or kind than the saved ones; `where` names the file.
        OutOfPagesError: a pool has too few free pages.
    """
    for what, pool, saved in zip(("rows", "frames"), (cache.self_pool, cache.cross_pool), values["pools"], strict=True):
        own = _pool_as_dict(pool)
        for name, value in saved.items():
            if own[name] != value:
                raise InputError(
                    f"{where} has {what} with {name} {value}, this engine {own[name]}; use the checkpoint and the precision "
                    "of the saved session"
                )
    cache.reserve(values["length"], len(values["pages"]))
    for page, content in zip(cache.self_table, _contents("rows", tensors, cache.self_pool), strict=False):
        cache.self_pool.store_page(page, content)
    for page, content in zip(cache.cross_table, _contents("frames", tensors, cache.cross_pool), strict=False):
        cache.cross_pool.store_page(page, content)
    cache.pages += [_page_from_dict(page) for page in values["pages"]]
    cache.row_positions += values["row_positions"]
    for name in _INTEGERS:
        setattr(cache, name, values[name])
    looks = tensors.get("archive.look")
    cache.archive = tuple(
        ArchivedFrame(_page_from_dict(page), content, looks[i].to(cache.cross_pool.device), page["renumberings"])
        for i, (page, content) in enumerate(zip(values["archive"], _contents("archive", tensors, None), strict=True))
        if looks is not None
    )


def _stack(group: str, pages: Sequence[PageContent]) -> dict[str, torch.Tensor]:
    found = {}
    for part in _PARTS:
        present = [getattr(page, part) for page in pages]
        if present and present[0] is not None:
            found[f"{group}.{part}"] = torch.stack(present).cpu()
    return found


def _contents(group: str, tensors: dict[str, torch.Tensor], pool: KVPool | None) -> list[PageContent]:
    """The pages of a group, on the pool's device."""
    parts = {part: tensors.get(f"{group}.{part}") for part in _PARTS}
    vectors = parts["vectors"]
    if vectors is None:
        return []
    device = torch.device("cpu") if pool is None else pool.device
    moved = {part: None if value is None else value.to(device) for part, value in parts.items()}
    pages = []
    for i in range(len(vectors)):
        own = {part: None if value is None else value[i] for part, value in moved.items()}
        pages.append(PageContent(**own))  # type: ignore[arg-type]
    return pages


def _page_as_dict(page: FramePage) -> dict[str, Any]:
    values = {f.name: getattr(page, f.name) for f in dataclasses.fields(page)}
    return values | {"positions": list(page.positions), "kind": page.kind.value}


def _page_from_dict(values: dict[str, Any]) -> FramePage:
    known = {f.name for f in dataclasses.fields(FramePage)}
    own = {name: value for name, value in values.items() if name in known}
    return FramePage(**own | {"positions": tuple(values["positions"]), "kind": PageKind(values["kind"])})


def _pool_as_dict(pool: KVPool) -> dict[str, Any]:
    return {**dataclasses.asdict(pool.shape), "dtype": str(pool.dtype).removeprefix("torch.")}
