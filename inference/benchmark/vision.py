"""`python -m inference.benchmark.vision --out FILE`: the vision path of an 11B model with random weights, mode by mode."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from inference.benchmark.meter import DeviceMeter, repeat, timed
from inference.benchmark.models import MODELS, RandomTensors
from inference.benchmark.roofline import H200, projector_flops, tower_parts
from inference.benchmark.vision_parts import (
    LayerBench,
    measure_attention,
    measure_elementwise,
    measure_products,
    measure_upload,
)
from inference.vision.clip import Clip
from inference.vision.encoder import FrameEncoder
from inference.vision.mode import VISION_MODES, VisionMode
from inference.vision.region import region_of_size, whole
from model.config import VideoMllamaConfig
from model.errors import InputError
from model.vision.encoder import VisionEncoder

LIMIT_SECONDS = 150.0
"""A part that would begin later is left out and named in the file."""

AUTOTUNED = "clip exact, autotuned"
"""Measured where it is asked for by name: the compiler tries its products for minutes."""


@dataclasses.dataclass
class VisionBench:
    """What is measured, and on what."""

    config: VideoMllamaConfig
    device: torch.device
    dtype: torch.dtype
    frames: int
    chunk: int
    runs: int

    def __post_init__(self) -> None:
        with torch.device("meta"):
            self.vision = VisionEncoder(self.config)
        shapes = {name: tuple(value.shape) for name, value in self.vision.state_dict().items()}
        drawn = RandomTensors(shapes, self.device, self.dtype, seed=0)
        self.vision.load_state_dict({name: drawn[name] for name in shapes}, assign=True)
        self.vision.requires_grad_(False).eval()
        side = self.config.vision.image_size
        self.picture = (side * 9 // 16, side)
        """Height and width of a 16:9 picture inside a frame."""
        self.clip = torch.zeros(self.frames, self.config.vision.num_channels, side, side, dtype=torch.uint8)
        self.clip[:, :, : self.picture[0]] = torch.randint(1, 256, (1, 3, self.picture[0], side), dtype=torch.uint8)
        self.meter = DeviceMeter(self.device)

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    def layer(self) -> LayerBench:
        """Measures of one layer at a full chunk."""
        return LayerBench(self.config, self.device, self.dtype, self.chunk, 20 if self.cuda else 1, H200.flops)

    def encode_clip(self, mode: VisionMode, **options: Any) -> dict[str, Any]:
        """Seconds for the whole clip, from the host's memory to features on the device."""
        torch.manual_seed(0)
        encoder = FrameEncoder(self.vision, mode=mode, chunk=self.chunk, **options)

        def encode() -> None:
            encoder.encode(self.clip, clip=encoder.new_clip(*self.picture))

        first = timed(self.meter, encode)  # compiles
        self.meter.reset_peak()
        seconds = repeat(self.meter, encode, self.runs)
        best = min(seconds)
        flops = self.frames * (sum(tower_parts(self.config)) + projector_flops(self.config))
        return {
            "seconds": seconds,
            "best_s": best,
            "first_s": first,
            "frames": self.frames,
            "attention": encoder.attention,
            "tflops_of_whole_frames": flops / best / 1e12,
            "percent_of_790": 100 * flops / best / H200.flops,
            "memory_gib": self.meter.memory(),
        }

    def latency(self, mode: VisionMode, sizes: Sequence[int]) -> dict[str, Any]:
        """Milliseconds of small calls, from handing in to features, captured and not; and of a frame handed in alone."""
        found: dict[str, Any] = {}
        captured = FrameEncoder(self.vision, mode=mode, chunk=max(sizes) + 1, graph_sizes=sizes)
        clip = captured.new_clip(*self.picture)
        for size in sizes:
            found[f"graph_{size}_ms"] = self._median(functools.partial(captured.encode, self.clip[:size], clip=clip))
            direct = FrameEncoder(self.vision, mode=mode, chunk=size, graph_sizes=())
            found[f"direct_{size}_ms"] = self._median(functools.partial(direct.encode, self.clip[:size], clip=clip))
        found["submitted_frame_ms"] = self._median(functools.partial(_hand_in, captured, self.clip[0], clip))
        return found

    def _median(self, action: Callable[[], object]) -> float:
        """Milliseconds."""
        times = sorted(repeat(self.meter, action, 4 * self.runs, warm_up=2))
        return 1e3 * times[len(times) // 2]


def _hand_in(encoder: FrameEncoder, frame: torch.Tensor, clip: Clip) -> torch.Tensor:
    return encoder.submit(frame, clip=clip).features()


def _parts(bench: VisionBench) -> dict[str, Callable[[], Any]]:
    """By name, the most important ones first."""
    modes = VISION_MODES
    vision = bench.config.vision
    full, cut = whole(vision), region_of_size(*bench.picture, vision)
    once = dataclasses.replace(modes["fast"], name="fast, keys once", repeat_keys=False)
    sizes = (1, 2, 4) if bench.cuda else (1, 2)
    encode = functools.partial(bench.encode_clip, graph_sizes=())
    parts: dict[str, Callable[[], Any]] = {
        "clip exact": lambda: encode(modes["exact"]),
        "clip fast": lambda: encode(modes["fast"]),
        "attention": lambda: measure_attention(bench.layer(), full),
        "products": lambda: measure_products(bench.layer(), full),
        "elementwise": lambda: measure_elementwise(bench.layer(), full, compiled=bench.cuda),
        "upload": lambda: measure_upload(bench.layer()),
        "clip exact, gelu behind": lambda: encode(modes["exact"], joint_gelu=False),
        "clip exact, not fused": lambda: encode(modes["exact"], fused=False),
        "clip fast, not fused": lambda: encode(modes["fast"], fused=False),
        "latency exact": lambda: bench.latency(modes["exact"], sizes),
        "attention valid_rows": lambda: measure_attention(bench.layer(), cut),
        "clip valid_rows": lambda: encode(modes["valid_rows"]),
        "clip fp8": lambda: encode(modes["fp8"]),
        "clip fast, keys once": lambda: encode(once),
        "clip exact, not compiled": lambda: encode(modes["exact"], compile_layers="off"),
        "clip exact, flash": lambda: encode(modes["exact"], attention="flash"),
        AUTOTUNED: lambda: encode(modes["exact"], compile_layers="autotune"),
    }
    # On a CPU nothing is compiled or fused, and torch has one attention.
    elsewhere = ("clip exact, not compiled", "clip exact, not fused", "clip fast, not fused", "clip exact, flash", AUTOTUNED)
    return {name: part for name, part in parts.items() if bench.cuda or name not in elsewhere}


def main(argv: Sequence[str] | None = None) -> int:
    """Measures every part and writes the file after each."""
    parser = argparse.ArgumentParser(prog="python -m inference.benchmark.vision", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON")
    parser.add_argument("--only", help=f"names of parts, separated by semicolons (default: all but {AUTOTUNED})")
    parser.add_argument("--chunk", type=int, default=32, help="frames in a call (default 32)")
    parser.add_argument("--frames", type=int, default=256, help="frames of the clip (default 256)")
    parser.add_argument("--runs", type=int, default=3, help="timed runs of a clip (default 3)")
    parser.add_argument(
        "--limit-seconds",
        type=float,
        default=LIMIT_SECONDS,
        metavar="N",
        help=f"begin no part that many seconds after the start (default {LIMIT_SECONDS:g})",
    )
    parser.add_argument("--dry-run", action="store_true", help="a tiny model on the CPU: the numbers mean nothing")
    args = parser.parse_args(argv)
    try:
        return _measure(args)
    except InputError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2


def _measure(args: argparse.Namespace) -> int:
    from inference.benchmark.surroundings import surroundings

    begin = time.perf_counter()
    for name, value in (("--chunk", args.chunk), ("--frames", args.frames), ("--runs", args.runs)):
        if value < 1:
            raise InputError(f"{name} is {value}; it must be at least 1")
    if not args.dry_run and not torch.cuda.is_available():
        raise InputError("torch finds no CUDA device, and a time is only measured there; use --dry-run to try the program")
    device = torch.device("cpu" if args.dry_run else "cuda")
    sizes = (MODELS["tiny"], torch.float32, 5, 2, 1) if args.dry_run else None
    bench = VisionBench(sizes[0], device, *sizes[1:]) if sizes else _full(args, device)
    parts = _parts(bench)
    chosen = (
        [name for name in parts if name != AUTOTUNED] if args.only is None else [name.strip() for name in args.only.split(";")]
    )
    for name in chosen:
        if name not in parts:
            raise InputError(f"--only names {name!r}; use some of: {'; '.join(parts)}")
    content: dict[str, Any] = {"dry_run": args.dry_run, **surroundings(device), "parts": {}, "left_out": []}
    for name in chosen:
        started = time.perf_counter() - begin
        if started >= args.limit_seconds:
            content["left_out"].append(name)
        else:
            print(f"{name}: begins at {started:.1f} s", flush=True)
            content["parts"][name] = _one(parts[name])
            print(f"{name}: ends at {time.perf_counter() - begin:.1f} s: {json.dumps(content['parts'][name])}", flush=True)
        _write(args.out, content)
    return 0


def _one(part: Callable[[], Any]) -> Any:
    """A part that fails says so in its place: the others are measured all the same."""
    try:
        with torch.inference_mode():
            return part()
    except Exception as error:
        return {"problem": f"{type(error).__name__}: {error}"}
    finally:
        if torch.cuda.is_available():
            with suppress(RuntimeError):  # of a device that broke: what the parts before found is written all the same
                torch.cuda.empty_cache()


def _full(args: argparse.Namespace, device: torch.device) -> VisionBench:
    return VisionBench(MODELS["11b"], device, torch.bfloat16, args.frames, args.chunk, args.runs)


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f"{path.name}.new")
    scratch.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    scratch.replace(path)


if __name__ == "__main__":
    sys.exit(main())
