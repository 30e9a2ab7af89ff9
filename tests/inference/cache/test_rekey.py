"""Keys made anew are the keys that would have been written; pooled keys are means that were then rotated and normalised."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.cache.frame_page import FramePage, PageKind
from inference.cache.patch_grid import grid_side, pooled_tokens
from inference.cache.pool import KVPool
from inference.cache.pooling import keep_class_tokens, pool_batch, pool_matrix
from inference.cache.rekey import KeyMaker, renumber
from inference.cache.session_cache import SessionCache
from inference.cache.store import KVStore
from inference.kernels.norms import rms_norm
from model.config import VideoMllamaConfig
from model.errors import InputError
from model.text.rope import apply_rope, rope_tables
from tests.inference.checkpoints import tiny_config
from tests.inference.oracle import _norm, _rotate

CONFIG: VideoMllamaConfig = tiny_config(vocab_size=40)
TEXT, TOKENS = CONFIG.text, CONFIG.vision.tokens_per_frame
CROSS_LAYERS, SELF_LAYERS = len(TEXT.cross_attention_layers), 3
NORMS = [1 + 0.3 * torch.randn(TEXT.head_dim, generator=torch.Generator().manual_seed(i)) for i in range(CROSS_LAYERS)]
MAKER = KeyMaker(CONFIG, NORMS)
EPS = TEXT.rms_norm_eps


def make_store(*, fp8: bool = False, raw_keys: bool = True) -> KVStore:
    return KVStore(CONFIG, torch.device("cpu"), torch.float32, fp8_frames=fp8, raw_keys=raw_keys, rows_per_page=4)


def write(cache: SessionCache, rows: int, frames: int, seed: int) -> None:
    """A step with random keys: rows follow each other, frames come with the first rows."""
    generator = torch.Generator().manual_seed(seed)
    cache.reserve(rows, frames)
    positions = [cache.next_position + i for i in range(frames)]
    for pool, slots, count, places in (
        (cache.self_pool, cache.row_slots(rows), rows, [cache.next_position + i for i in range(rows)]),
        (cache.cross_pool, cache.frame_slots(frames), frames * TOKENS, [p for p in positions for _ in range(TOKENS)]),
    ):
        cos, sin = rope_tables(TEXT, torch.tensor(places, dtype=torch.int64))
        for layer in range(pool.shape.layers):
            raw, values = (torch.randn(count, TEXT.num_key_value_heads, TEXT.head_dim, generator=generator) for _ in range(2))
            keys = apply_rope(raw, cos, sin)
            if pool is cache.cross_pool:
                keys = rms_norm(keys, NORMS[layer], EPS)
            pool.write(layer, torch.tensor(slots, dtype=torch.int64), keys, values, raw)
    cache.advance(rows, positions)


def raw_rows(cache: SessionCache, layer: int, *, cross: bool) -> torch.Tensor:
    pool, table = (cache.cross_pool, cache.cross_table) if cross else (cache.self_pool, cache.self_table)
    used = table[: cache.frames] if cross else table
    return pool.raw_keys(layer)[torch.tensor(used, dtype=torch.int64)].flatten(0, 1)


def check_keys(cache: SessionCache) -> None:
    """Every stored key, against a restatement in fp64 and, bit for bit, against the layers' own arithmetic."""
    rows = torch.tensor(cache.row_positions, dtype=torch.int64)
    frames = [p for page in cache.pages for p in page.positions * (TOKENS // len(page.positions))]
    places = torch.tensor(frames, dtype=torch.int64)
    for layer in range(SELF_LAYERS):
        raw = raw_rows(cache, layer, cross=False)[: cache.length]
        keys, _ = cache.self_pool.gather(layer, cache.self_table, cache.length)
        assert torch.equal(keys, apply_rope(raw, *rope_tables(TEXT, rows)))
        torch.testing.assert_close(keys.double(), _rotate(raw.double(), rows.double(), CONFIG), atol=2e-5, rtol=0)
    for layer in range(CROSS_LAYERS):
        raw = raw_rows(cache, layer, cross=True)
        keys, _ = cache.cross_pool.gather(layer, cache.cross_table, cache.frames * TOKENS)
        assert torch.equal(keys, rms_norm(apply_rope(raw, *rope_tables(TEXT, places)), NORMS[layer], EPS))
        expected = _norm(_rotate(raw.double(), places.double(), CONFIG), NORMS[layer].double(), EPS)
        torch.testing.assert_close(keys.double(), expected, atol=2e-5, rtol=0)


@settings(max_examples=20)
@given(data=st.data())
def test_renumbered_keys_are_those_written_at_the_new_positions(data: st.DataObject) -> None:
    cache = make_store().new_cache()
    for step in range(data.draw(st.integers(1, 3))):
        write(cache, data.draw(st.integers(4, 11)), data.draw(st.integers(0, 4)), step)
        full = cache.length // 4
        begin = data.draw(st.integers(0, full))
        cache.drop_rows(begin, data.draw(st.integers(0, full - begin)))
        first = data.draw(st.integers(0, cache.frames))
        cache.drop_frames(first, data.draw(st.integers(0, cache.frames - first)))
    fork = cache.fork() if data.draw(st.booleans()) else None
    before = (list(cache.row_positions), cache.frame_positions)
    values = [cache.self_pool.gather(i, cache.self_table, cache.length)[1].clone() for i in range(SELF_LAYERS)]
    renumber(cache, MAKER)
    check_keys(cache)
    for i, old in enumerate(values):
        assert torch.equal(cache.self_pool.gather(i, cache.self_table, cache.length)[1], old)
    # Order, and which row and frame share a position, stay; nothing lies between.
    old, new = before[0] + before[1], cache.row_positions + cache.frame_positions
    assert sorted(set(new)) == list(range(len(set(old)))) == list(range(cache.next_position))
    assert all((a < b) == (x < y) for a, x in zip(old, new, strict=True) for b, y in zip(old, new, strict=True))
    if fork is not None:
        assert (fork.row_positions, fork.frame_positions) == before
        check_keys(fork)


def test_renumbering_needs_unrotated_keys() -> None:
    cache = make_store(raw_keys=False).new_cache()
    cache.reserve(4, 1)
    cache.advance(4, [2])
    cache.drop_frames(0, 1)
    cache.reserve(1, 1)
    cache.advance(1, [9])
    with pytest.raises(InputError, match="keeps no unrotated keys"):
        renumber(cache, MAKER)


def test_the_pooling_matrix() -> None:
    assert (grid_side(101), pooled_tokens(101), pooled_tokens(5), pooled_tokens(10)) == (10, 26, 2, 5)
    frame = torch.arange(101.0)[:, None]
    patches = frame[1:].view(10, 10)
    expected = torch.nn.functional.avg_pool2d(patches[None], 2)[0].flatten()
    assert torch.equal((pool_matrix(101) @ frame).flatten(), torch.cat([frame[0], expected]))
    odd = pool_matrix(10) @ torch.arange(10.0)  # 3 x 3 patches: 1 2 3 / 4 5 6 / 7 8 9
    assert odd.tolist() == [0.0, 3.0, 4.5, 7.5, 9.0]
    with pytest.raises(InputError, match="cannot be pooled"):
        grid_side(7)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("fp8", [False, True])
def test_batches_of_frames_grow_coarser(shared: bool, fp8: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    put = KVPool._put

    def put_from_elsewhere(pool: KVPool, layer: int, part: int, slots: torch.Tensor, given: torch.Tensor) -> None:
        # A GPU writes rows in any order: none may be read from where another goes.
        assert given.untyped_storage().data_ptr() != pool.keys(0).untyped_storage().data_ptr()
        put(pool, layer, part, slots, given)

    monkeypatch.setattr(KVPool, "_put", put_from_elsewhere)
    store = make_store(fp8=fp8)
    cache = store.new_cache()
    write(cache, 3, 2, 0)
    write(cache, 9, TOKENS + 1, 1)
    numbers = range(1, 1 + TOKENS)
    raw = [raw_rows(cache, i, cross=True).view(-1, TOKENS, 2, TEXT.head_dim)[1 : 1 + TOKENS].clone() for i in range(CROSS_LAYERS)]
    values = [
        cache.cross_pool.gather(i, cache.cross_table, 99 * TOKENS)[1].view(-1, TOKENS, 2, TEXT.head_dim)[1 : 1 + TOKENS].clone()
        for i in range(CROSS_LAYERS)
    ]
    positions = cache.frame_positions[1 : 1 + TOKENS]
    fork = cache.fork() if shared else None
    untouched = [cache.cross_pool.gather(i, cache.cross_table, 2 * TOKENS)[0].clone() for i in range(CROSS_LAYERS)]
    pool_batch(cache, MAKER, 1)
    small = pooled_tokens(TOKENS)
    assert [page.kind for page in cache.pages] == [PageKind.FRAME, *[PageKind.POOLED] * small, PageKind.FRAME, PageKind.FRAME]
    assert [page.number for page in cache.pages] == [0, numbers[0], numbers[TOKENS // small], TOKENS + 1, TOKENS + 2]
    matrix = pool_matrix(TOKENS).double()
    tolerance = 1e-5 if not fp8 else 0.3
    for i in range(CROSS_LAYERS):
        keys, got = cache.cross_pool.gather(i, cache.cross_table[1:], small * TOKENS)
        mean = torch.einsum("qp,fphd->fqhd", matrix, raw[i].double()).flatten(0, 1)
        place = torch.tensor(positions).repeat_interleave(small).double()
        expected = _norm(_rotate(mean, place, CONFIG), NORMS[i].double(), EPS)
        torch.testing.assert_close(keys.double(), expected, atol=tolerance, rtol=0)
        smaller = torch.einsum("qp,fphd->fqhd", matrix, values[i].double()).flatten(0, 1)
        torch.testing.assert_close(got.double(), smaller, atol=tolerance, rtol=0)
    keep_class_tokens(cache, MAKER, 1)
    assert cache.pages[1] == FramePage(tuple(positions), 1, PageKind.CLASS)
    for i in range(CROSS_LAYERS):
        keys, got = cache.cross_pool.gather(i, cache.cross_table[1:], TOKENS)
        expected = _norm(_rotate(raw[i][:, 0].double(), torch.tensor(positions).double(), CONFIG), NORMS[i].double(), EPS)
        torch.testing.assert_close(keys.double(), expected, atol=tolerance, rtol=0)
        torch.testing.assert_close(got.double(), values[i][:, 0].double(), atol=tolerance, rtol=0)
    if fork is not None:
        for i, old in enumerate(untouched):
            assert torch.equal(fork.cross_pool.gather(i, fork.cross_table, 2 * TOKENS)[0], old)
        fork.release()
    cache.release()
    assert store.used_bytes == 0
