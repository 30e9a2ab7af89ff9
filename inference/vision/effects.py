"""What a fast mode changes: in the features of each frame, and in the tokens that the decoder chooses behind them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from inference.engine import StepEngine
from inference.vision.encoder import FrameEncoder
from inference.vision.mode import VISION_MODES, VisionMode


@dataclass(frozen=True)
class Effect:
    """One mode held against the exact one on one clip."""

    mode: str
    cosine: list[float]
    """Of each frame's features, all its tokens as one vector."""
    least_token_cosine: float
    """Of the single token, in any frame, that moved most."""
    largest_difference: float
    """Of any feature, as a share of the largest exact feature."""
    greedy_agreement: float
    """Share of the exact reply's tokens that the mode chooses too, given the same tokens before them."""
    first_token_agrees: bool
    kl: list[float]
    """KL divergence, in nats, of the distribution of each of these tokens from the exact one."""
    patches: float
    """Share of patches that were computed."""
    encoded_frames: int
    """Frames that were encoded rather than taken from the one before."""

    def row(self) -> dict[str, object]:
        """The numbers of a table's line."""
        return {
            "mode": self.mode,
            "cosine mean": sum(self.cosine) / len(self.cosine),
            "cosine least": min(self.cosine),
            "token least": self.least_token_cosine,
            "difference": self.largest_difference,
            "greedy agreement": self.greedy_agreement,
            "first token": self.first_token_agrees,
            "KL mean": sum(self.kl) / len(self.kl),
            "KL most": max(self.kl),
            "patches": self.patches,
            "encoded": self.encoded_frames,
        }


def alternatives() -> list[VisionMode]:
    """The cheaper form of `valid_rows`, for comparison."""
    return [dataclasses.replace(VISION_MODES["valid_rows"], name="valid_rows, keys once", repeat_keys=False)]


@torch.inference_mode()
def measure_effects(
    engine: StepEngine, frames: Tensor, prompt: Sequence[int], modes: Sequence[VisionMode], *, tokens: int = 32
) -> Iterator[Effect]:
    """Holds modes against the exact one.

    Args:
        engine: of the checkpoint.
        frames: uint8 [F, 3, S, S] of one clip, in the host's memory.
        prompt: ids with one image token for each frame.
        modes: to measure, one after the other.
        tokens: length of the reply, chosen greedily from the exact features; the modes are then fed the same reply.
    """
    vision = engine.model.vision
    exact = FrameEncoder(vision).encode(frames)
    reply, expected = _greedy(engine, prompt, exact, tokens)
    for mode in modes:
        encoder = FrameEncoder(vision, mode=mode)
        clip = encoder.new_clip()
        found = encoder.encode(frames, clip=clip)
        logits = _forced(engine, prompt, found, reply)
        region, grid = clip.region, vision.config.vision.grid_size
        yield Effect(
            mode=mode.name if mode.near_duplicate is None else f"{mode.name}, near duplicates below {mode.near_duplicate:g}",
            cosine=F.cosine_similarity(found.float().flatten(1), exact.float().flatten(1)).tolist(),
            least_token_cosine=float(F.cosine_similarity(found.float(), exact.float(), dim=-1).min()),
            largest_difference=float((found.float() - exact.float()).abs().max() / exact.float().abs().max()),
            greedy_agreement=float((logits.argmax(-1) == expected.argmax(-1)).float().mean()),
            first_token_agrees=bool(logits[0].argmax() == expected[0].argmax()),
            kl=F.kl_div(logits.log_softmax(-1), expected.log_softmax(-1), reduction="none", log_target=True).sum(-1).tolist(),
            patches=1.0 if region is None else region.rows * region.columns / grid**2,
            encoded_frames=_distinct(found),
        )


def _distinct(features: Tensor) -> int:
    """Frames whose features are not those of the frame before."""
    return 1 + int((features[1:] != features[:-1]).flatten(1).any(1).sum())


def _greedy(engine: StepEngine, prompt: Sequence[int], features: Tensor, tokens: int) -> tuple[list[int], Tensor]:
    """The reply, and fp32 logits [tokens, V] it was chosen from."""
    cache = engine.new_cache(positions=len(prompt) + tokens, frames=len(features))
    rows = [engine.step(cache, prompt, features)[-1]]
    reply = [int(rows[-1].argmax())]
    while len(reply) < tokens:
        rows.append(engine.step(cache, reply[-1:])[-1])
        reply.append(int(rows[-1].argmax()))
    return reply, torch.stack(rows)


def _forced(engine: StepEngine, prompt: Sequence[int], features: Tensor, reply: Sequence[int]) -> Tensor:
    """fp32 logits [tokens, V] of the same rows behind other features."""
    cache = engine.new_cache(positions=len(prompt) + len(reply), frames=len(features))
    rows = [engine.step(cache, prompt, features)]
    if len(reply) > 1:
        rows.append(engine.step(cache, reply[:-1], every_row=True))
    return torch.cat(rows)
