"""Tensors stored as any rectangles are read by any rectangles; damage is found or harmless."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from model.conversion.tensor_file import StreamedTensor, TensorInfo
from model.errors import InputError
from moss_train.checkpoint.description import CheckpointDescription
from moss_train.checkpoint.index import Index, StoredPiece
from moss_train.checkpoint.integrity import check_share
from moss_train.checkpoint.piece import Piece
from moss_train.checkpoint.piece_file import Outgoing
from moss_train.checkpoint.publish import publish
from moss_train.checkpoint.rank_files import RankFiles
from moss_train.checkpoint.tensor_writer import write_tensors
from moss_train.checkpoint.tensors import CheckpointTensors

_DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.int16])


def _cut(tensor: torch.Tensor, cuts: list[list[int]], key: str) -> list[Piece]:
    """A grid of rectangles."""
    pieces = [Piece(key, tuple(tensor.shape), (0,) * tensor.dim(), tuple(tensor.shape), tensor)]
    for axis, places in enumerate(cuts):
        halves = []
        for piece in pieces:
            borders = sorted({0, piece.sizes[axis], *(p for p in places if p < piece.sizes[axis])})
            for begin, end in itertools.pairwise(borders):
                offsets = tuple(o + begin * (i == axis) for i, o in enumerate(piece.offsets))
                values = piece.values.narrow(axis, begin, end - begin)
                halves.append(Piece(key, piece.shape, offsets, tuple(values.shape), values))
        pieces = halves
    return [Piece(p.key, p.shape, p.offsets, p.sizes, p.values.contiguous()) for p in pieces]


def _publish(run: Path, pieces: list[Piece], ranks: int, step: int = 1) -> Path:
    folder = run / "checkpoints" / f"step_{step:08d}.tmp"
    for rank in range(ranks):
        RankFiles(rank, pieces[rank::ranks], small={f"random_{rank:05d}.pt": {"state": rank}}).write(folder)
    return publish(run, folder, CheckpointDescription(step=step, model={}, world_size=ranks))


@settings(max_examples=40, deadline=None)
@given(shape=st.lists(st.integers(1, 6), min_size=1, max_size=3), dtype=_DTYPES, ranks=st.integers(1, 3), data=st.data())
def test_any_rectangle_of_any_rectangles(
    shape: list[int], dtype: torch.dtype, ranks: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tensor = (torch.randn(shape) * 100).to(dtype)
    cuts = [data.draw(st.lists(st.integers(1, 6), max_size=2)) for _ in shape]
    stored = CheckpointTensors(_publish(tmp_path_factory.mktemp("run"), _cut(tensor, cuts, "w"), ranks))
    assert stored.keys() == ["w"] and stored.info("w") == TensorInfo(tuple(shape), dtype)
    ends = [sorted((data.draw(st.integers(0, n - 1)), data.draw(st.integers(1, n)))) for n in shape]
    box = tuple(a for a, _ in ends), tuple(max(1, b - a) for a, b in ends)
    expected = tensor[tuple(slice(o, o + n) for o, n in zip(*box, strict=True))]
    target = torch.empty(box[1], dtype=dtype)
    stored.read_box("w", box, target)
    assert torch.equal(target, expected)
    assert torch.equal(stored.read_rows("w", 0, shape[0]), tensor)


def test_files_are_plain_safetensors(tmp_path: Path) -> None:
    tensor = torch.randn(4, 6)
    folder = _publish(tmp_path, _cut(tensor, [[], [2]], "w"), 2)
    left, right = load_file(folder / "rank_00000_000.safetensors"), load_file(folder / "rank_00001_000.safetensors")
    assert torch.equal(torch.cat([left["w@0,0"], right["w@0,2"]], 1), tensor)
    assert sorted(p.name for p in folder.glob("*.json")) == ["checkpoint.json", "index.json"]


def test_whole_tensors_are_written_block_by_block(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(7, 5), "b": torch.randn(3).bfloat16(), "scalar": torch.tensor(2.5)}
    streams = {
        k: StreamedTensor(TensorInfo(tuple(t.shape), t.dtype), lambda t=t: t.split(2) if t.dim() else [t])
        for k, t in tensors.items()
    }
    index = write_tensors(tmp_path, streams, file_bytes=1)
    assert len(index.files) == 3 and not list(tmp_path.glob("*.json"))
    for name, size in index.files.items():
        assert (tmp_path / name).stat().st_size == size


def test_pieces_that_make_no_whole_are_refused(tmp_path: Path) -> None:
    pieces = _cut(torch.randn(4, 6), [[2], []], "w")
    with pytest.raises(ValueError, match=r"the pieces of w have 12 elements, its shape \[4, 6\] 24"):
        _publish(tmp_path, pieces[:1], 1)
    index, other = Index(), Index()
    index.add("w", TensorInfo((4,), torch.float32), StoredPiece((0,), (4,), "a", 0, 0))
    other.add("w", TensorInfo((5,), torch.float32), StoredPiece((0,), (5,), "b", 0, 0))
    with pytest.raises(ValueError, match=r"w is .*in b and .* elsewhere"):
        index.merge(other)
    assert not (tmp_path / "checkpoints" / "step_00000001").exists()


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    tensors = {"w": torch.randn(6, 5), "optimizer.exp_avg.w": torch.randn(6, 5), "b": torch.randn(7).bfloat16()}
    pieces = [p for key, tensor in tensors.items() for p in _cut(tensor, [[2]] if tensor.dim() == 1 else [[4], [3]], key)]
    return _publish(tmp_path_factory.mktemp("healthy"), pieces, 2), tensors


@settings(max_examples=150, deadline=None)
@given(data=st.data(), bit=st.integers(0, 7))
def test_a_changed_bit_anywhere_is_found_or_never_read(
    healthy: tuple[Path, dict[str, torch.Tensor]], data: st.DataObject, bit: int
) -> None:
    folder, tensors = healthy
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << bit)]) + whole[place + 1 :])
    try:
        check_share(folder)
        stored = CheckpointTensors(folder, verify=False)
        assert all(torch.equal(stored.read_rows(k, 0, t.shape[0]), t) for k, t in tensors.items())
    except InputError as error:
        assert path.name in str(error)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("shares", [1, 2, 5])
def test_some_share_finds_the_damage_and_what_is_not_wanted_is_not_looked_at(
    healthy: tuple[Path, dict[str, torch.Tensor]], shares: int
) -> None:
    folder, _ = healthy
    path = folder / "rank_00001_000.safetensors"
    whole = path.read_bytes()
    position = next(p.position for p in CheckpointTensors(folder).index.tensors["w"].pieces if p.file == path.name)
    path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
    found = 0
    for share in range(shares):
        check_share(folder, "full", lambda key: key != "w", share, shares)
        check_share(folder, "sizes", lambda key: True, share, shares)
        try:
            check_share(folder, "full", lambda key: True, share, shares)
        except InputError as error:
            found += 1
            assert "rank_00001_000.safetensors is damaged: w, bytes" in str(error)
    path.write_bytes(whole)
    assert found == 1


def test_files_that_are_missing_or_cut_short_are_named(
    healthy: tuple[Path, dict[str, torch.Tensor]],
) -> None:
    folder, _ = healthy
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for content in (whole[: len(whole) // 2], whole + b"x", None):
            if content is None:
                path.unlink()
            else:
                path.write_bytes(content)
            with pytest.raises(InputError, match=f"{path.name}"):
                check_share(folder, "sizes")
        path.write_bytes(whole)
    check_share(folder)
    with pytest.raises(InputError, match="lacks the parameter c"):
        CheckpointTensors(folder).info("c")


def test_an_outgoing_piece_is_named_after_its_place() -> None:
    piece = Piece("w", (8, 8), (4, 0), (2, 8), torch.zeros(16))
    outgoing = Outgoing.of(piece)
    assert outgoing.name == piece.name == "w@4,0" and outgoing.info.num_bytes == piece.num_bytes == math.prod((2, 8, 4))
