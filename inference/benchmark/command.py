"""Running the parts one after the other: arguments, order, what is written where."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference.benchmark.surroundings import chip_for, surroundings
from model.errors import InputError

if TYPE_CHECKING:
    import torch

    from inference.benchmark.bench import Bench, Setup
    from inference.benchmark.results import Results


@dataclass(frozen=True)
class Part:
    """One measurement."""

    help: str
    module: str
    function: str = "measure"
    options: tuple[tuple[str, str | bool | None], ...] = ()
    checked_by: str = "correctness"
    """The part that compares what this one times; '' for none."""
    seconds: float = 30.0
    """What it takes at full size on an H200 at the most, the model it needs and its compiling included: an estimate."""

    def load(self) -> Callable[[Bench], dict[str, Any]]:
        """What measures it."""
        from importlib import import_module

        return partial(getattr(import_module(f"inference.benchmark.parts.{self.module}"), self.function), **dict(self.options))


EXIT_FAILED = 1
"""A part broke, or none could be measured."""

_FP8 = (("recipe", "fp8"),)
PARTS = {
    "chip": Part("what a copy and a matrix product reach here", "chip", checked_by="", seconds=10),
    "correctness": Part("cached decoding against the whole sequence", "correctness", seconds=45),
    "first-token": Part("time to first token, exact vision", "first_token", seconds=50),
    "legacy": Part("the reference's protocol", "legacy"),
    "end-to-end": Part("256 tokens from pixels, peak memory", "end_to_end", seconds=25),
    "decode": Part("tokens a second, bf16", "decode"),
    "decode-dense": Part("the same, bf16 weights read by torch's products", "decode", options=(("products", "torch"),)),
    "stream": Part("from a new frame, and from a prompt, to the next token", "stream"),
    "jitter": Part("one session speaking while frames arrive", "live", "measure_jitter", seconds=60),
    "sessions": Part("16 sessions speaking", "live", "measure_sessions", seconds=45),
    "long-stream": Part("an hour of stream as fast as it goes", "long_stream", seconds=60),
    "from-file": Part("time to first token from a video file", "from_file", seconds=60),
    "first-token-fast": Part("time to first token, fast vision", "first_token", options=(("vision", "fast"),), seconds=50),
    "correctness-fp8": Part("the same with fp8 weights", "correctness", options=_FP8, checked_by="correctness-fp8", seconds=45),
    "decode-fp8": Part("tokens a second, fp8", "decode", options=_FP8, checked_by="correctness-fp8"),
    "decode-fp8-frames": Part(
        "the same with keys and values of frames in fp8 too", "decode", options=(*_FP8, ("fp8_frames", True)), checked_by=""
    ),
    "sessions-fp8": Part("16 sessions speaking, fp8", "live", "measure_sessions", _FP8, "correctness-fp8", seconds=45),
    "peer": Part("stock Qwen2.5-VL-7B beside it", "peer", checked_by="", seconds=75),
}
"""In the order in which they run: parts of one model stand together."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to measure, and where the results go."""
    parser.add_argument("--model", default="11b", metavar="NAME", help="11b (default) or tiny, with random weights, or a folder")
    parser.add_argument(
        "--workload", choices=["full", "small"], help="sizes: full, or small ones for a CPU (default: small for tiny)"
    )
    parser.add_argument("--only", metavar="PARTS", help=f"separated by commas, of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--legacy-metric", action="store_true", help="only the reference's protocol: short for --only legacy")
    parser.add_argument("--runs", type=int, metavar="N", help="whole answers that are timed (default: the workload's)")
    parser.add_argument("--sessions", type=int, metavar="N", help="that speak together (default: the workload's)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:N or auto (default)")
    parser.add_argument("--dtype", default="auto", help="bf16, fp16, fp32 or auto: bf16 on a GPU, fp32 elsewhere (default)")
    parser.add_argument(
        "--graphs", choices=["auto", "on", "off"], default="auto", help="steps on static buffers, as CUDA graphs; auto: on a GPU"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random weights (default 0)")
    parser.add_argument("--video", type=Path, metavar="FILE", help="for from-file (default: one is made)")
    parser.add_argument(
        "--work-dir", type=Path, metavar="DIR", help="where that one is made and kept (default: a temporary folder)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="JSON of results; parts that it holds are measured anew only by --only"
    )
    parser.add_argument(
        "--limit-seconds",
        type=float,
        metavar="N",
        help="begin no part that many seconds after the start, nor one that would end later; the same command goes on with them",
    )
    parser.add_argument("--table", type=Path, metavar="FILE", help="measure nothing; print the tables of this file of results")


def run(arguments: argparse.Namespace) -> int:
    """Measure what is asked for, part by part; each is written as soon as it is there.

    Raises:
        InputError: an unknown part, size or device, or a file of other results.
    """
    begin = time.monotonic()
    from inference.benchmark.results import Results, read
    from inference.benchmark.table import write_tables

    if arguments.table is not None:
        print(write_tables(read(arguments.table)), end="")
        return 0
    names = chosen_parts("legacy" if arguments.legacy_metric else arguments.only)
    setup = make_setup(arguments)
    if arguments.out is not None:
        if arguments.out.is_dir():
            raise InputError(f"--out {arguments.out} is a folder; give the name of a file")
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
    shared = {"model": setup.model, "workload": asdict(setup.workload), "dtype": str(setup.dtype), "seed": setup.seed}
    shared["graphs"] = setup.graphs
    results = Results(arguments.out, shared)
    if arguments.only is None and not arguments.legacy_metric:
        names = [name for name in names if name not in results.content["parts"]]
    limit = Limit(begin, arguments.limit_seconds, rated=setup.model == "11b" and setup.device.type == "cuda")
    failed = measure(names, setup, results, limit)
    print(write_tables(results.content), end="")
    nothing = bool(names) and not any(name in results.content["parts"] for name in names)
    return EXIT_FAILED if failed or nothing else 0


def chosen_parts(given: str | None) -> list[str]:
    """Names of parts in the order in which they run.

    Raises:
        InputError: one is not known, or there is none.
    """
    if given is None:
        return list(PARTS)
    wanted = {name.strip() for name in given.split(",") if name.strip()}
    for name in sorted(wanted):
        if name not in PARTS:
            raise InputError(f"--only has {name!r}; use some of {', '.join(PARTS)}")
    if not wanted:
        raise InputError(f"--only is empty; use some of {', '.join(PARTS)}")
    return [name for name in PARTS if name in wanted]


def make_setup(arguments: argparse.Namespace) -> Setup:
    """Model, sizes and device.

    Raises:
        InputError: no such model, device or dtype, or a number that is too small.
    """
    import torch

    from inference.benchmark.bench import Setup
    from inference.benchmark.models import MODELS
    from inference.benchmark.workload import WORKLOADS
    from inference.checkpoint import check_device, dtype_of

    if arguments.model not in MODELS and not Path(arguments.model).is_dir():
        raise InputError(f"--model is {arguments.model!r}; use {', '.join(MODELS)} or the folder of a checkpoint")
    work = WORKLOADS[arguments.workload or ("small" if arguments.model == "tiny" else "full")]
    if arguments.runs is not None:
        if arguments.runs < 1:
            raise InputError(f"--runs is {arguments.runs}; it must be at least 1")
        work = replace(work, runs=arguments.runs, legacy_runs=arguments.runs)
    if arguments.sessions is not None:
        if arguments.sessions < 1:
            raise InputError(f"--sessions is {arguments.sessions}; it must be at least 1")
        work = replace(work, sessions=arguments.sessions)
    if arguments.limit_seconds is not None and not arguments.limit_seconds >= 0:
        raise InputError(f"--limit-seconds is {arguments.limit_seconds:g}; it must be at least 0")
    if arguments.video is not None and not arguments.video.is_file():
        raise InputError(f"--video {arguments.video} does not exist; give a video file or leave it out")
    device = check_device(arguments.device)
    dtype = arguments.dtype if arguments.dtype != "auto" else ("bf16" if device.startswith("cuda") else "fp32")
    return Setup(
        model=arguments.model,
        workload=work,
        device=torch.device(device),
        dtype=dtype_of(dtype),
        seed=arguments.seed,
        graphs={"auto": device.startswith("cuda"), "on": True, "off": False}[arguments.graphs],
        video=arguments.video,
        work_dir=arguments.work_dir,
    )


@dataclass(frozen=True)
class Limit:
    """When the last part may begin.

    Attributes:
        begin: when the command began, by `time.monotonic`.
        seconds: after which none begins; None: there is no limit.
        rated: the parts' estimates hold for this run, and one that would end too late is not begun either.
    """

    begin: float = field(default_factory=time.monotonic)
    seconds: float | None = None
    rated: bool = False

    def passed(self) -> float:
        """Seconds since the command began."""
        return time.monotonic() - self.begin

    def problem(self, part: Part) -> str:
        """Why this part may not begin any more; '' where it may."""
        if self.seconds is None:
            return ""
        if self.passed() >= self.seconds:
            return f"not begun: --limit-seconds {self.seconds:g} had passed"
        if self.rated and self.passed() + part.seconds > self.seconds:
            return f"not begun: it takes {part.seconds:g} s, which do not fit into what --limit-seconds {self.seconds:g} left"
        return ""


def measure(
    names: list[str], setup: Setup, results: Results, limit: Limit | None = None, say: Callable[[str], None] | None = None
) -> list[str]:
    """Run these parts; one that cannot run here, or breaks, is noted with its reason and the others go on.

    Args:
        results: takes what was found.
        limit: after which no part begins.
        say: takes lines of progress; None prints them on stderr.

    Returns:
        The parts that broke, and those that could not begin because of one.
    """
    from inference.benchmark.bench import Bench

    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    limit = limit or Limit()
    bench = Bench(setup, chip_for(setup.device), say)
    failed: list[str] = []
    trouble = ""
    for name in names:
        reason = trouble or limit.problem(PARTS[name])
        if reason:
            say(f"{name}: {reason}")
            results.miss(name, reason)
            failed += [name] if trouble else []
        elif not _measure_part(name, bench, results, limit):
            failed.append(name)
            trouble = device_trouble(setup.device)
    return failed


def _measure_part(name: str, bench: Bench, results: Results, limit: Limit) -> bool:
    """Measure one part and enter it, or why it could not be; False where it broke."""
    begin = limit.passed()
    bench.say(f"{name}: begins at {begin:.1f} s: {PARTS[name].help}")
    try:
        found = PARTS[name].load()(bench)
    except (InputError, ImportError) as error:
        bench.say(f"{name}: ends at {limit.passed():.1f} s, not measured: {error}")
        results.miss(name, str(error))
        return True
    except Exception as error:
        # Time on a GPU is dear: what the other parts can say is not given up.
        bench.say(traceback.format_exc())
        results.miss(name, f"failed: {type(error).__name__}: {error}")
        bench.say(f"{name}: ends at {limit.passed():.1f} s, failed")
        with suppress(Exception):  # a device that broke refuses this as well
            bench.release()
        return False
    taken = limit.passed() - begin
    verdict = correctness(name, found, results.content["parts"])
    around = surroundings(bench.device)
    results.add(name, {"surroundings": around, "seconds_taken": taken, "correctness": verdict, **found})
    bench.say(f"{name}: ends at {limit.passed():.1f} s, took {taken:.1f} s")
    return True


def device_trouble(device: torch.device) -> str:
    """Why nothing more can be measured in this process; '' where the device still answers."""
    import torch

    try:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return f"not begun: the device answers no more ({reason}); run the same command again"
    return ""


def correctness(name: str, found: dict[str, Any], parts: dict[str, Any]) -> str:
    """yes | no | not compared: whether what this part times computes the right thing."""
    check = PARTS[name].checked_by
    if not check:
        return "not compared"
    compared = found if check == name else parts.get(check)
    if compared is None:
        return "not compared"
    return "yes" if compared["correct"] else "no"
