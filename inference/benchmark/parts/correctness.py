"""What the numbers are worth: cached, batched decoding against the whole sequence at once, with the weights that are timed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from inference.benchmark.bench import Bench
from inference.benchmark.generation import fixed_length, greedy, session
from inference.benchmark.workload import clip_frames, prompt
from inference.cache.session_cache import SessionCache
from inference.cache.store import ROWS_PER_PAGE
from inference.engine import StepEngine, Stepping, StepRequest
from inference.sampling import Sampler

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.01}
"""Largest root-mean-square difference of logits, in parts of their own, that rounding alone explains in 40 layers."""


SHORTFALL = 6
"""Tolerances by which a sampled token's logit may be below the largest: the rounding of two logits, over all rows and tokens."""
FEW_ROWS = 16
"""Rows up to which fp8 weights meet activations that are not rounded."""


def compare(whole: torch.Tensor, pieces: torch.Tensor) -> dict[str, float]:
    """How far two sets of logits [n, V] are apart.

    Returns:
        `relative_rms`, the smallest cosine of a row, the part of rows with the same likeliest token, and 1 if all is finite.
    """
    a, b = whole.double(), pieces.double()
    scale = float(a.pow(2).mean().sqrt())
    return {
        "relative_rms": float((a - b).pow(2).mean().sqrt()) / scale if scale else float(a.ne(b).any()),
        "least_cosine": float(torch.nn.functional.cosine_similarity(a, b, dim=-1).min()),
        "same_likeliest": float((a.argmax(-1) == b.argmax(-1)).double().mean()),
        "finite": float(bool(torch.isfinite(a).all() and torch.isfinite(b).all())),
    }


def measure(bench: Bench, recipe: str = "bf16") -> dict[str, Any]:
    """The timed weights within rounding, and a small fp32 model to the token: step by step, and in a batch with others.

    Returns:
        `correct`, true when everything agrees, and what was found.
    """
    work = bench.workload
    rows = work.correct_rows + work.correct_frames
    engine = bench.engine(recipe, rows=rows, frames=work.correct_frames)
    found = _timed_weights(engine, bench, recipe)
    together_rows = work.sessions * (rows + work.sessions + work.correct_tokens + ROWS_PER_PAGE)
    small = bench.small_engine(together_rows, work.sessions * work.correct_frames)
    prompts = [_small_prompt(small, work.correct_frames, work.correct_rows, seed) for seed in range(work.sessions)]
    alone = [_greedy(small, [one], work.correct_tokens, bench)[0] for one in prompts]
    exact = all(_likeliest(small, one, tokens) == tokens for one, tokens in zip(prompts, alone, strict=True))
    together = _greedy(small, prompts, work.correct_tokens, bench) == alone
    tolerance = TOLERANCE[bench.dtype]
    return {
        "correct": _within(found, tolerance) and exact and together,
        "timed_weights": {**found, "tolerance": tolerance},
        "small_model_greedy_equals_full_forward": exact,
        "small_model_batch_equals_alone": together,
        "greedy_tokens": work.correct_tokens,
        "sessions_in_the_batch": len(prompts),
    }


def _within(found: Mapping[str, float], tolerance: float) -> bool:
    near = found["relative_rms"] <= tolerance and found["shortfall_of_sampled"] <= SHORTFALL * tolerance
    return bool(found["finite"]) and near


def _timed_weights(engine: StepEngine, bench: Bench, recipe: str) -> dict[str, float]:
    """One sequence fed row by row against the same fed whole.

    In fp8 a step of many rows rounds its activations too, and a step of few does not: there whole means in portions of few.

    Returns:
        `compare` of both, what feeding it whole instead of in portions of few changes, and by how much, in parts of the logits'
        root mean square, the tokens that the decoding path samples behind each row fall short of the likeliest.
    """
    work = bench.workload
    rows = prompt(bench.config, work.correct_frames, work.correct_rows, seed=11)
    features = engine.encode(bench.clip(work.correct_frames))

    def fed(portion: int) -> torch.Tensor:
        with session(engine) as cache:
            return _in_portions(engine, cache, rows, features, portion)

    at_once, few = fed(len(rows)), fed(FEW_ROWS)
    whole = at_once if recipe == "bf16" else few
    with session(engine) as cache:
        pieces = torch.stack(engine.drive([_row_by_row(engine, cache, rows, features, None)])[0])
    with session(engine) as cache:
        sampled = engine.drive([_row_by_row(engine, cache, rows, features, greedy())])[0]
    return {
        **compare(whole, pieces),
        "prompt_at_once_relative_rms": compare(at_once, few)["relative_rms"],
        "shortfall_of_sampled": shortfall(whole, sampled),
    }


def shortfall(logits: torch.Tensor, tokens: Sequence[int]) -> float:
    """How far the tokens' logits are below the largest of their rows, at the most, in parts of the root mean square of all."""
    values = logits.double().cpu()
    missed = values.max(-1).values - values[torch.arange(len(tokens)), torch.tensor(tokens)]
    return float(missed.max() / values.pow(2).mean().sqrt())


def _in_portions(
    engine: StepEngine, cache: SessionCache, rows: Sequence[int], features: torch.Tensor, portion: int
) -> torch.Tensor:
    """fp32 logits [n, V] of all rows."""
    found = []
    for begin in range(0, len(rows), portion):
        part = rows[begin : begin + portion]
        first = list(rows[:begin]).count(engine.image_id)
        count = list(part).count(engine.image_id)
        found.append(engine.step(cache, part, features[first : first + count] if count else None, every_row=True))
    return torch.cat(found)


def _row_by_row(
    engine: StepEngine, cache: SessionCache, rows: Sequence[int], features: torch.Tensor, sampler: Sampler | None
) -> Stepping[list[Any]]:
    """Logits behind each row or, with a sampler, the token that it takes there; the rows are fed whatever it takes."""
    found, seen = [], 0
    for row in rows:
        frame = row == engine.image_id
        new = features[seen : seen + 1] if frame else None
        answer = yield StepRequest(cache, [row], features=new, sampler=sampler, ahead=sampler is not None)
        seen += frame
        found.append(answer if sampler is not None else answer.clone())
    return found


def _small_prompt(engine: StepEngine, frames: int, rows: int, seed: int) -> tuple[list[int], torch.Tensor]:
    config = engine.model.config
    return prompt(config, frames, rows + seed, seed), engine.encode(clip_frames(config, frames, seed))


def _greedy(engine: StepEngine, prompts: Sequence[tuple[list[int], torch.Tensor]], count: int, bench: Bench) -> list[list[int]]:
    """Tokens of each prompt, all decoded in lockstep."""
    caches = [engine.new_cache() for _ in prompts]
    generators = [
        fixed_length(cache, rows, count, bench.meter, features=features)
        for cache, (rows, features) in zip(caches, prompts, strict=True)
    ]
    found = [one.tokens for one in engine.drive(generators)]
    for cache in caches:
        cache.release()
    return found


def _likeliest(engine: StepEngine, asked: tuple[list[int], torch.Tensor], tokens: list[int]) -> list[int]:
    """What the whole sequence, computed at once, takes at each place."""
    rows, features = asked
    with session(engine) as cache:
        logits = engine.step(cache, [*rows, *tokens[:-1]], features, every_row=True)
    return [int(token) for token in logits[len(rows) - 1 :].argmax(-1)]
