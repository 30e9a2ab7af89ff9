"""Encoding a rank's frames with and without kept autograd state gives the same features and gradients."""

from __future__ import annotations

import pytest
import torch

from moss_train.frames.owned import OwnedFrames
from moss_train.frames.settings import EncodeSettings


class TwoLayers(torch.nn.Module):
    """A real (tiny) encoder with the two calls of the vision encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.lower = torch.nn.Linear(12, 6)
        self.upper = torch.nn.Linear(6, 5)
        self.tower_calls = 0

    def pooled(self, frames: torch.Tensor, aspect_ratio_ids: torch.Tensor) -> torch.Tensor:
        self.tower_calls += int(frames.shape[0])
        return torch.tanh(self.lower(frames.flatten(1).float() / 255)) * aspect_ratio_ids[:, None]

    def project_pooled(self, pooled: torch.Tensor) -> torch.Tensor:
        return self.upper(pooled)[:, None]


def _settings(chunk: int) -> EncodeSettings:
    return EncodeSettings(chunk=chunk, again_chunk=chunk)


def _run(trains: str, keep: int, chunk: int, count: int = 7) -> tuple[TwoLayers, OwnedFrames, torch.Tensor]:
    torch.manual_seed(0)
    encoder = TwoLayers()
    frames = torch.randint(0, 256, (count, 3, 2, 2), dtype=torch.uint8)
    owned = OwnedFrames(encoder, frames, torch.ones(count, dtype=torch.int64), trains, keep, _settings(chunk))
    gradient = torch.randn(count, 1, 5)
    if trains != "nothing":
        owned.backward(gradient)
    assert owned.features is not None
    return encoder, owned, owned.features


@pytest.mark.parametrize(("keep", "chunk"), [(0, 64), (3, 2), (7, 3), (100, 1)])
def test_re_encoding_changes_nothing(keep: int, chunk: int) -> None:
    whole, _, expected = _run("tower", -1, 64)
    encoder, owned, features = _run("tower", keep, chunk)
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-6)
    for got, want in zip(encoder.parameters(), whole.parameters(), strict=True):
        assert got.grad is not None
        torch.testing.assert_close(got.grad, want.grad, rtol=0, atol=1e-6)
    assert owned.encoded_again == 7 - min(keep, 7)


def test_projector_alone_leaves_the_tower_out_of_autograd() -> None:
    encoder, _, _ = _run("projector", 0, 3)
    assert encoder.lower.weight.grad is None and encoder.upper.weight.grad is not None
    assert encoder.tower_calls == 7, "the tower runs once a frame"


def test_frozen_encoder_keeps_nothing() -> None:
    encoder, owned, features = _run("nothing", -1, 4)
    assert not features.requires_grad and all(p.grad is None for p in encoder.parameters())
    assert owned.encoded_again == 0


def test_no_frames() -> None:
    empty = torch.empty(0, 3, 2, 2, dtype=torch.uint8)
    owned = OwnedFrames(TwoLayers(), empty, torch.empty(0, dtype=torch.int64), "tower", -1, _settings(4))
    assert owned.features is None
    owned.backward(torch.empty(0, 1, 5))
