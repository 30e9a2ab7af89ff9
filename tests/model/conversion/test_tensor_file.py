"""Our safetensors files are the library's, the library's are ours, and damaged ones are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from model.conversion.tensor_file import StreamedTensor, TensorFile, TensorFileWriter, TensorInfo, write_tensor_file
from model.errors import InputError

_DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool]


def _random(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return (torch.randn(shape) * 50).to(dtype)


@settings(max_examples=15)
@given(parts=st.lists(st.tuples(st.sampled_from(_DTYPES), st.lists(st.integers(1, 5), min_size=1, max_size=3)), min_size=1))
def test_the_library_reads_what_is_written_in_pieces_and_we_read_what_it_writes(
    parts: list[tuple[torch.dtype, list[int]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("files")
    tensors = {f"t{i}": _random(tuple(shape), dtype) for i, (dtype, shape) in enumerate(parts)}
    # One row at a time: the tensors are whole only in the file.
    streams = {n: StreamedTensor(TensorInfo(tuple(t.shape), t.dtype), lambda t=t: t.split(1)) for n, t in tensors.items()}  # type: ignore[misc]
    write_tensor_file(folder / "ours.safetensors", streams)
    save_file(tensors, str(folder / "theirs.safetensors"))
    found = load_file(folder / "ours.safetensors")
    assert found.keys() == tensors.keys() and all(torch.equal(found[n], t) for n, t in tensors.items())
    theirs = TensorFile(folder / "theirs.safetensors")
    for name, tensor in tensors.items():
        assert theirs.infos[name] == TensorInfo(tuple(tensor.shape), tensor.dtype)
        last = torch.empty_like(tensor[-1:])
        theirs.read_rows(name, tensor.shape[0] - 1, last)
        assert torch.equal(last, tensor[-1:])


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda data: data[:-1], "was cut short"),
        (lambda data: data[:5], "header does not fit"),
        (lambda data: data.replace(b'"F32"', b'"F9X"'), "dtype F9X"),
        (lambda data: data.replace(b"[2,3]", b"[2,4]"), "its shape asks for 32"),
        (lambda data: data.replace(b'"shape"', b'"shapx"'), "not readable as safetensors"),
        (lambda data: b"\xff" * 8 + data[8:], "header does not fit"),
    ],
)
def test_damaged_files_are_named(damage: object, named: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_tensor_file(path, {"a": StreamedTensor.of(torch.ones(2, 3))})
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(InputError, match=named) as caught:
        TensorFile(path)
    assert str(path) in str(caught.value)


def test_a_file_that_shrinks_while_it_is_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_tensor_file(path, {"a": StreamedTensor.of(torch.ones(2, 3))})
    file = TensorFile(path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError, match="in the middle of a tensor"):
        file.read_rows("a", 0, torch.empty(2, 3))


def test_too_few_pieces_are_no_file(tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match="its header says"),
        TensorFileWriter(tmp_path / "a.safetensors", {"a": TensorInfo((4,), torch.float32)}) as file,
    ):
        file.write(torch.ones(3))
