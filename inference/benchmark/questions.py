"""`python -m inference.benchmark.questions --out FILE`: many questions about one video, from one encoded stream or one by one.

Three ways to the same answers, in one process: `forked` encodes the frames once, feeds them once and lets every question go on
in a fork of the keys and values, all forks in one step; `features kept` encodes them once and feeds them again for each question;
`one by one` does everything anew for each. The prediction beside them counts operations and bytes of each way.
`--model tiny --device cpu` runs the same on a CPU, as a trial of the program and not of its speed.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from inference.benchmark.generation import Generated, fixed_length, greedy
from inference.benchmark.meter import DeviceMeter, Meter, timed
from inference.benchmark.models import MODELS, random_model
from inference.benchmark.roofline import Chip, answer_flops, decode_bytes, parameters, prefill_flops
from inference.benchmark.surroundings import chip_for, surroundings
from inference.checkpoint import check_device, dtype_of
from inference.commands import exit_code
from inference.engine import StepEngine, Stepping, StepRequest
from inference.evaluation.running.trunk import Trunk
from inference.serving.forks import together
from model.config import VideoMllamaConfig
from model.errors import InputError

HEAD_ROWS = 6
WAYS = ("forked", "features kept", "one by one")


@dataclass(frozen=True)
class Sizes:
    """Of the comparison."""

    frames: int = 256
    questions: int = 20
    rows: int = 32
    """Of one question, behind the frames."""
    tokens: int = 16
    """Of one answer."""
    runs: int = 3
    """Of the faster ways; one by one runs once."""


class Questions:
    """One video and its questions, made up.

    Args:
        engine: whose model answers.
        sizes: how many of everything.
        meter: the clock.
    """

    def __init__(self, engine: StepEngine, sizes: Sizes, meter: Meter) -> None:
        self.engine, self.sizes, self.meter = engine, sizes, meter
        config, generator = engine.model.config, torch.Generator().manual_seed(0)
        size = config.vision.image_size
        self.frames = torch.randint(0, 256, (sizes.frames, 3, size, size), dtype=torch.uint8, generator=generator)
        if engine.model.device.type == "cuda":
            self.frames = self.frames.pin_memory()
        draw = torch.randint(
            0, config.text.vocab_size - 1, (sizes.questions + 1, max(sizes.rows, HEAD_ROWS)), generator=generator
        )
        self.head = draw[-1, :HEAD_ROWS].tolist()
        images = [engine.image_id] * sizes.frames
        self.prompts = [[*self.head, *images, *row[: sizes.rows].tolist()] for row in draw[:-1]]

    def forked(self) -> list[list[int]]:
        """Tokens of all answers from one encoding and one feeding."""
        return self.engine.drive([self._forked(self.engine.encode(self.frames))])[0]

    def _forked(self, features: torch.Tensor) -> Stepping[list[list[int]]]:
        trunk = Trunk(self.engine, lambda numbers: features[numbers[0] : numbers[-1] + 1], self.head)
        fed = HEAD_ROWS + self.sizes.frames
        caches = []
        for _ in self.prompts:
            caches.append((yield from trunk.fork(range(self.sizes.frames))))
        pairs = zip(caches, self.prompts, strict=True)
        found = yield from together([fixed_length(cache, rows[fed:], self.sizes.tokens, self.meter) for cache, rows in pairs])
        for cache in caches:
            cache.release()
        trunk.release()
        return [one.tokens for one in found]

    def kept(self) -> list[list[int]]:
        """Tokens of all answers from one encoding; each question feeds the frames anew."""
        features = self.engine.encode(self.frames)
        return [self._single(rows, features=features) for rows in self.prompts]

    def alone(self) -> list[list[int]]:
        """Tokens of all answers, each from pixels on."""
        return [self._single(rows, frames=self.frames) for rows in self.prompts]

    def _single(self, rows: list[int], **pictures: torch.Tensor) -> list[int]:
        cache = self.engine.new_cache()
        found: Generated = self.engine.drive([fixed_length(cache, rows, self.sizes.tokens, self.meter, **pictures)])[0]
        cache.release()
        return found.tokens

    def margin(self, number: int, said: Sequence[int], other: int) -> float:
        """How much likelier (in logits) the last token of `said` is than `other` at its place, fed afresh."""
        cache = self.engine.new_cache()
        rows = [*self.prompts[number], *said[:-1]]
        features = self.engine.encode(self.frames)

        def once() -> Stepping[torch.Tensor]:
            row: torch.Tensor = yield StepRequest(cache, rows, features=features)
            return row

        logits = self.engine.drive([once()])[0]
        cache.release()
        return float(logits[said[-1]] - logits[other])


def predict(config: VideoMllamaConfig, chip: Chip, sizes: Sizes) -> dict[str, float]:
    """Seconds of each way at the least, in bf16: operations of encoding and prompts, bytes of decoding steps."""
    rows, steps = HEAD_ROWS + sizes.frames + sizes.rows, sizes.tokens - 1
    whole = answer_flops(config, rows, sizes.frames)
    prompt = prefill_flops(config, rows, sizes.frames)
    questions = sizes.questions * (prompt - prefill_flops(config, HEAD_ROWS + sizes.frames, sizes.frames))
    step = decode_bytes(config, sizes.frames, rows) / chip.bytes_per_second
    joint = decode_bytes(config, sizes.frames, rows, sessions=sizes.questions) / chip.bytes_per_second
    alone = sizes.questions * (whole / chip.flops + steps * step)
    features = (whole + (sizes.questions - 1) * prompt) / chip.flops + sizes.questions * steps * step
    return {"forked": (whole + questions) / chip.flops + steps * joint, "features kept": features, "one by one": alone}


def compare(questions: Questions) -> dict[str, Any]:
    """Seconds of each way, ratios, and how far the answers agree."""
    ways: dict[str, Callable[[], list[list[int]]]] = {"forked": questions.forked, "features kept": questions.kept}
    ways["one by one"] = questions.alone
    seconds: dict[str, list[float]] = {}
    answers: dict[str, list[list[int]]] = {}
    for name, way in ways.items():
        if name != "one by one":
            way()  # compiles, captures, fills pools; the last way uses what the second has prepared
        for _ in range(questions.sizes.runs if name != "one by one" else 1):
            seconds.setdefault(name, []).append(timed(questions.meter, functools.partial(_keep, answers, name, way)))
        print(f"{name}: {statistics.median(seconds[name]):.3f} s", file=sys.stderr, flush=True)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "seconds": seconds,
        "ratio": {name: medians["one by one"] / medians[name] for name in WAYS[:2]},
        "same": {name: agreement(answers["one by one"], answers[name]) for name in WAYS[:2]},
        "first_differences": _margins(questions, answers["one by one"], answers["forked"]),
    }


def _keep(answers: dict[str, list[list[int]]], name: str, way: Callable[[], list[list[int]]]) -> None:
    answers[name] = way()


def agreement(ours: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]]) -> dict[str, float]:
    """Share of equal answers, and of tokens before the first difference of each answer."""
    equal = sum(list(a) == list(b) for a, b in zip(ours, theirs, strict=True))
    before = sum(_first_difference(a, b) for a, b in zip(ours, theirs, strict=True))
    return {"answers": equal / len(ours), "tokens_before_a_difference": before / sum(map(len, ours))}


def _first_difference(a: Sequence[int], b: Sequence[int]) -> int:
    return next((place for place, (x, y) in enumerate(zip(a, b, strict=True)) if x != y), len(a))


def _margins(questions: Questions, ours: Sequence[list[int]], theirs: Sequence[list[int]], most: int = 4) -> list[dict[str, Any]]:
    """The first differing tokens, and by how much the one was likelier than the other."""
    found: list[dict[str, Any]] = []
    for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        place = _first_difference(a, b)
        if place < len(a) and len(found) < most:
            margin = questions.margin(number, a[: place + 1], b[place])
            found.append({"question": number, "token": place, "logit_margin": margin})
    return found


def measure(config: VideoMllamaConfig, device: torch.device, dtype: torch.dtype, sizes: Sizes) -> dict[str, Any]:
    """All of one model and dtype."""
    meter = DeviceMeter(device)
    engine = StepEngine(random_model(config, device, dtype))
    engine.encoder.warm_up()
    if engine.server is not None:
        engine.prepare([greedy()], [1])
    found = compare(Questions(engine, sizes, meter))
    layers = {
        "decoder": config.text.num_hidden_layers,
        "vision": config.vision.num_hidden_layers + config.vision.num_global_layers,
    }
    floors = predict(config, chip_for(device), sizes)
    return {
        "dtype": str(dtype).removeprefix("torch."),
        "sizes": dataclasses.asdict(sizes),
        "layers": layers,
        "parameters": parameters(config).total,
        "predicted_seconds": floors,
        "predicted_ratio": {name: floors["one by one"] / floors[name] for name in WAYS[:2]},
        **found,
        "memory_gib": meter.memory(),
    }


def shallow(config: VideoMllamaConfig, layers: int) -> VideoMllamaConfig:
    """The same widths with so many decoder layers."""
    crossing = tuple(layer for layer in config.text.cross_attention_layers if layer < layers)
    if not crossing:
        raise InputError(
            f"--exact-layers is {layers}; the first cross layer is {config.text.cross_attention_layers[0]}: give more"
        )
    text = dataclasses.replace(config.text, num_hidden_layers=layers, cross_attention_layers=crossing)
    return dataclasses.replace(config, text=text)


def run(argv: Sequence[str] | None = None) -> None:
    """The command.

    Raises:
        InputError: a bad argument, or no such device.
    """
    parser = argparse.ArgumentParser(prog="python -m inference.benchmark.questions", description=__doc__)
    defaults = Sizes()
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--model", default="11b", choices=sorted(MODELS))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto", help="of the timed model (default: bf16 on a GPU, fp32 elsewhere)")
    for name in ("frames", "questions", "rows", "tokens", "runs"):
        parser.add_argument(f"--{name}", type=int, default=getattr(defaults, name))
    parser.add_argument(
        "--exact-layers", type=int, default=5, help="decoder layers of the fp32 model whose answers must be equal"
    )
    parser.add_argument("--exact-frames", type=int, default=8, help="frames of that comparison; 0 leaves it out")
    args = parser.parse_args(argv)
    sizes = Sizes(**{name: getattr(args, name) for name in ("frames", "questions", "rows", "tokens", "runs")})
    for name, value in dataclasses.asdict(sizes).items():
        if value < 1:
            raise InputError(f"--{name} is {value}; it must be at least 1")
    if not args.out.resolve().parent.is_dir():
        raise InputError(f"--out is {args.out}; name a file in a folder that exists")
    device = torch.device(check_device(args.device))
    dtype = dtype_of(("bf16" if device.type == "cuda" else "fp32") if args.dtype == "auto" else args.dtype)
    config = MODELS[args.model]
    content: dict[str, Any] = {"format": "moss-questions-benchmark/1", "model": args.model, "surroundings": surroundings(device)}
    with torch.inference_mode():
        if args.exact_frames:
            reduced = shallow(config, min(args.exact_layers, config.text.num_hidden_layers))
            exact = dataclasses.replace(sizes, frames=args.exact_frames, runs=1)
            content["exact"] = measure(reduced, device, torch.float32, exact)
            _write(args.out, content)
            if device.type == "cuda":
                torch.cuda.empty_cache()
        content["timed"] = measure(config, device, dtype, sizes)
    _write(args.out, content)
    timed_part = content["timed"]
    print(f"forked {timed_part['ratio']['forked']:.1f}x one by one (predicted {timed_part['predicted_ratio']['forked']:.1f}x)")


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(exit_code("questions", run))
