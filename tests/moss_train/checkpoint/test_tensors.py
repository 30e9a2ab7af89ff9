"""Checkpoints written tensor by tensor are what torch's own reader takes; torch's own are read by rows; damage is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from model.conversion.tensor_file import TensorInfo
from model.errors import InputError
from moss_train.checkpoint.tensor_writer import CheckpointTensorWriter
from moss_train.checkpoint.tensors import CheckpointTensors

_DTYPES = [torch.float32, torch.bfloat16, torch.float16]
_SHAPES = st.lists(st.integers(1, 9), min_size=1, max_size=4)


def _write(folder: Path, tensors: dict[str, torch.Tensor], rows: int, file_bytes: int = 1 << 30) -> None:
    folder.mkdir(exist_ok=True)
    with CheckpointTensorWriter(folder, file_bytes) as writer:
        for key, tensor in tensors.items():
            writer.write_tensor(key, TensorInfo(tuple(tensor.shape), tensor.dtype), tensor.split(rows))
        writer.write_nothing("linear._extra_state/shard_0_1")


@settings(max_examples=10)
@given(
    parts=st.lists(st.tuples(st.sampled_from(_DTYPES), _SHAPES), min_size=1, max_size=4),
    rows=st.integers(1, 9), file_bytes=st.sampled_from([1, 1 << 30]),
)  # fmt: skip
def test_torch_reads_what_is_written_and_rows_come_back(
    parts: list[tuple[torch.dtype, list[int]]], rows: int, file_bytes: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("checkpoint")
    tensors = {f"t{i}": torch.randn(shape).to(dtype) for i, (dtype, shape) in enumerate(parts)}
    _write(folder, tensors, rows, file_bytes)
    assert (len(list(folder.glob("*.distcp"))) > 1) == (file_bytes < 1 << 30)
    found = {key: torch.full_like(tensor, float("nan")) for key, tensor in tensors.items()}
    dcp.load(found, storage_reader=dcp.FileSystemReader(folder), no_dist=True)  # type: ignore[attr-defined]
    stored = CheckpointTensors(folder)
    assert stored.keys() == list(tensors) and "linear._extra_state/shard_0_1" not in stored
    for key, tensor in tensors.items():
        assert torch.equal(found[key], tensor)
        assert stored.info(key) == TensorInfo(tuple(tensor.shape), tensor.dtype)
        middle = tensor.shape[0] // 2
        assert torch.equal(stored.read_rows(key, middle, tensor.shape[0] - middle), tensor[middle:])
        assert torch.equal(stored.read_rows(key, 0, 1), tensor[:1])


def test_what_torch_writes_is_read(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(7, 5), "b": torch.randn(9).bfloat16(), "part": torch.arange(40.0).view(8, 5)[2:4]}
    dcp.save(dict(tensors), storage_writer=dcp.FileSystemWriter(tmp_path), no_dist=True)  # type: ignore[attr-defined]
    stored = CheckpointTensors(tmp_path)
    for key, tensor in tensors.items():
        assert torch.equal(stored.read_rows(key, 1, tensor.shape[0] - 1), tensor[1:])


def test_the_stride_of_an_axis_of_one_element_does_not_matter(tmp_path: Path) -> None:
    tensors = {"row": torch.randn(5).as_strided((1, 5), (7, 1)), "column": torch.randn(5).as_strided((5, 1), (1, 3))}
    dcp.save(tensors, storage_writer=dcp.FileSystemWriter(tmp_path), no_dist=True)  # type: ignore[attr-defined, arg-type]
    stored = CheckpointTensors(tmp_path)
    assert all(torch.equal(stored.read_rows(key, 0, tensor.shape[0]), tensor) for key, tensor in tensors.items())


def test_values_in_another_order_than_their_rows_are_refused(tmp_path: Path) -> None:
    tensors = {"turned": torch.randn(7, 5).t()}
    dcp.save(tensors, storage_writer=dcp.FileSystemWriter(tmp_path), no_dist=True)  # type: ignore[attr-defined, arg-type]
    with pytest.raises(InputError, match=r"turned: stored as FloatStorage with the strides \[1, 5\]"):
        CheckpointTensors(tmp_path).read_rows("turned", 0, 2)


def test_columns_are_put_together(tmp_path: Path) -> None:
    """Shares of columns, as tensor parallelism stores them: two tensors whose index is rewritten into one."""
    whole = torch.randn(6, 10)
    _write(tmp_path, {"w": whole[:, :4].contiguous(), "right": whole[:, 4:].contiguous()}, rows=4)
    stored = CheckpointTensors(tmp_path)
    entries = stored._metadata.state_dict_metadata
    left, right = entries["w"], entries["right"]
    assert isinstance(left, TensorStorageMetadata) and isinstance(right, TensorStorageMetadata)
    left.size = torch.Size((6, 10))
    stored._rectangles["w"] = stored._parts("w") + [
        type(part)((part.offsets[0], 4), part.sizes, part.path, part.position) for part in stored._parts("right")
    ]
    assert torch.equal(stored.read_rows("w", 1, 4), whole[1:5])
    del stored._rectangles["w"][-1]
    with pytest.raises(InputError, match="stores only a part of w"):
        stored.read_rows("w", 0, 6)


def test_damage_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    _write(folder, {"a": torch.randn(7, 5)}, rows=7)
    with pytest.raises(InputError, match="lacks the parameter b"):
        CheckpointTensors(folder).info("b")
    data = (folder / "__0_0.distcp").read_bytes()
    (folder / "__0_0.distcp").write_bytes(data[:200])
    with pytest.raises(InputError, match=r"__0_0.distcp is damaged at byte 0 \(a: "):
        CheckpointTensors(folder).read_rows("a", 0, 1)
    (folder / "__0_0.distcp").unlink()
    with pytest.raises(InputError, match=r"__0_0.distcp cannot be read \(No such file"):
        CheckpointTensors(folder).read_rows("a", 0, 1)
    (folder / ".metadata").write_bytes(b"no pickle")
    with pytest.raises(InputError, match="c cannot be read"):
        CheckpointTensors(folder)
