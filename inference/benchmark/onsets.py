"""`python -m inference.benchmark.onsets`: streams in real time on one machine, and the same on another with its latency profile.

`record OUT` measures a profile of this machine into OUT/profile.json, then runs scripted streams in real time and, where a
checkpoint and scenarios are given, its own decisions, and keeps their traces. `reproduce OUT` runs the same streams on a virtual
clock with that profile, on whatever machine, and sets the medians side by side.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from data_pipeline.text.tokenizer import Tokenizer
from inference.benchmark.latency import describe, make_engine, measure
from inference.benchmark.models import TINY, random_model
from inference.benchmark.streams import WideTokenizer, pictures_for, run_live, run_simulated, streams_of
from inference.benchmark.surroundings import surroundings
from inference.commands import exit_code
from inference.engine import StepEngine
from inference.evaluation.latency.profile import LatencyProfile, load_profile, save_profile
from inference.evaluation.running.runner import ScenarioRunner
from inference.evaluation.running.settings import RunSettings
from inference.evaluation.schema import Scenario, Trace
from inference.evaluation.scorers.speaking import match_speech
from inference.evaluation.scorers.utterances import read_speech
from inference.evaluation.storage import load_scenarios, load_traces, save_traces, write_lines
from inference.evaluation.suites.system.events import read_stream
from inference.model.load import load_model
from model.errors import InputError

KINDS = ("proactive", "prompted", "dense", "talkative")
FIGURES = {
    "onset after the frame": "after_frame",
    "onset after the prompt": "first_token",
    "frame latency": "frame_latency",
    "staleness": "staleness",
    "barge-in, new turn": "barge_in_first",
}
"""Of `StreamFacts`, by the name in the table."""


def record(engine: StepEngine, seconds: float, out: Path) -> LatencyProfile:
    """Profile and scripted streams of one engine, in real time."""
    profile = measure(engine, live_seconds=seconds)
    profile.about.update(surroundings(engine.model.device), dtype=str(engine.model.dtype))
    save_profile(out / "profile.json", profile)
    print(describe(profile), flush=True)
    tokenizer, frames = WideTokenizer(engine.model.config.text.vocab_size), pictures_for(engine)
    traces = [run_live(engine, tokenizer, stream, frames) for kind in KINDS for stream in streams_of(kind, seconds)]
    save_traces(out / "scripted.traces.jsonl", traces)
    write_lines(out / "seconds.json", [json.dumps(seconds)])
    return profile


def record_own(checkpoint: Path, scenarios: Path, limit: int, device: str, seconds: float, out: Path) -> None:
    """Profile of a checkpoint in fp32, and its own decisions about scenarios in real time."""
    model = load_model(checkpoint, device, torch.float32)
    engine = StepEngine(model)
    fps = streamed(scenarios, 1)[0].fps
    profile = measure(engine, live_seconds=max(seconds, 12 / fps), fps=fps)
    profile.about.update(surroundings(model.device), dtype=str(model.dtype))
    save_profile(out / "own.profile.json", profile)
    print("own:", describe(profile), flush=True)
    settings = RunSettings(clock="wall", tokens_per_frame=None, modes=("push",))
    runner = ScenarioRunner(engine, Tokenizer.from_file(checkpoint), scenarios.parent, settings, strict=True)
    chosen = streamed(scenarios, limit)
    runner.run(chosen[:1])  # compiles and captures what only sessions need
    traces = [trace for scenario in chosen for trace in runner.run([scenario])[0]]
    save_traces(out / "own.traces.jsonl", traces)


def streamed(scenarios: Path, limit: int) -> list[Scenario]:
    """The first scenarios of a file that have something to say."""
    return [scenario for scenario in load_scenarios(scenarios) if scenario.spans][:limit]


def reproduce(folder: Path, profile: LatencyProfile) -> list[Trace]:
    """The scripted streams on a virtual clock; a tiny model does the steps, the profile says how long they take."""
    engine = StepEngine(random_model(TINY, "cpu", torch.float32))
    tokenizer, frames = WideTokenizer(TINY.text.vocab_size), pictures_for(engine)
    seconds = json.loads((folder / "seconds.json").read_text())
    return [run_simulated(engine, tokenizer, stream, frames, profile) for kind in KINDS for stream in streams_of(kind, seconds)]


def reproduce_own(checkpoint: Path, scenarios: Path, limit: int, profile: Path) -> list[Trace]:
    """The checkpoint's decisions, made anew on the CPU, on a virtual clock with the profile's times."""
    settings = RunSettings(tokens_per_frame=None, latency_profile=str(profile), modes=("push",))
    engine = StepEngine(load_model(checkpoint, "cpu", torch.float32))
    runner = ScenarioRunner(engine, Tokenizer.from_file(checkpoint), scenarios.parent, settings, strict=True)
    return [trace for traces in runner.run(streamed(scenarios, limit)) for trace in traces]


def figures(traces: Sequence[Trace]) -> dict[str, list[float]]:
    """All values of each figure, in seconds."""
    facts = [read_stream(trace) for trace in traces]
    return {name: [value for one in facts for value in getattr(one, field)] for name, field in FIGURES.items()}


def onsets(traces: Sequence[Trace], scenarios: Sequence[Scenario]) -> dict[str, list[float]]:
    """By kind of span: seconds from its beginning to the utterance that hit it."""
    by_id = {scenario.id: scenario for scenario in scenarios}
    found: dict[str, list[float]] = {}
    for trace in traces:
        scenario = by_id[trace.scenario_id]
        matched = match_speech(trace, scenario)
        for point, index in matched.pairs:
            owner = matched.owners[point]
            if owner is not None:
                span = scenario.spans[index]
                found.setdefault(f"onset of {span.kind}", []).append(owner.t - span.a)
    return found


def compare(real: dict[str, list[float]], simulated: dict[str, list[float]]) -> dict[str, Any]:
    """Medians side by side; the difference in per cent of the real one."""
    rows: dict[str, Any] = {}
    for name, values in real.items():
        others = simulated.get(name, [])
        if not values or not others:
            continue
        a, b = statistics.median(values), statistics.median(others)
        row: dict[str, Any] = {"real_s": a, "simulated_s": b, "count": [len(values), len(others)]}
        row["percent"] = 100 * (b - a) / a if a else None
        rows[name] = row
    return rows


def said(traces: Sequence[Trace]) -> list[list[str]]:
    """Texts of all utterances of each trace."""
    return [[utterance.text for utterance in read_speech(trace).utterances] for trace in traces]


def _table(title: str, rows: dict[str, Any]) -> None:
    print(title)
    for name, row in rows.items():
        percent = "" if row["percent"] is None else f" {row['percent']:+.2f} %"
        times = f"{1e3 * row['real_s']:10.3f} ms real {1e3 * row['simulated_s']:10.3f} ms simulated"
        print(f"  {name:24s} {times}{percent} of {row['count'][0]}")


def _run_record(args: argparse.Namespace) -> None:
    args.folder.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode():
        if args.model:
            record(make_engine(args.model, args.device, args.dtype), args.seconds, args.folder)
        if args.checkpoint:
            from inference.checkpoint import check_device

            record_own(args.checkpoint, args.scenarios, args.limit, check_device(args.device), args.seconds, args.folder)


def _run_reproduce(args: argparse.Namespace) -> None:
    result: dict[str, Any] = {"format": "moss-onsets/1"}
    with torch.inference_mode():
        if (args.folder / "profile.json").is_file():
            profile = load_profile(args.folder / "profile.json")
            real = load_traces(args.folder / "scripted.traces.jsonl")
            simulated = reproduce(args.folder, profile)
            result["profile"] = dataclasses.asdict(profile)
            result["scripted"] = compare(figures(real), figures(simulated))
            result["streams"] = {a.scenario_id: compare(figures([a]), figures([b])) for a, b in zip(real, simulated, strict=True)}
            for name, rows in [("all scripted streams", result["scripted"]), *result["streams"].items()]:
                _table(name, rows)
        if args.checkpoint:
            real = load_traces(args.folder / "own.traces.jsonl")
            simulated = reproduce_own(args.checkpoint, args.scenarios, args.limit, args.folder / "own.profile.json")
            chosen = streamed(args.scenarios, args.limit)
            result["own_profile"] = dataclasses.asdict(load_profile(args.folder / "own.profile.json"))
            sides = [figures(traces) | onsets(traces, chosen) for traces in (real, simulated)]
            result["own"] = compare(*sides)
            same = sum(a == b for a, b in zip(said(real), said(simulated), strict=True))
            result["own_same_words"] = same / len(real)
            _table(f"own decisions: the same words in {same} of {len(real)} streams", result["own"])
    write_lines(args.folder / "onsets.json", [json.dumps(result, indent=1)])
    print(args.folder / "onsets.json")


def run(argv: Sequence[str] | None = None) -> None:
    """The command.

    Raises:
        InputError: a bad argument, or files that are not there.
    """
    parser = argparse.ArgumentParser(prog="python -m inference.benchmark.onsets", description=__doc__)
    parser.add_argument("action", choices=("record", "reproduce"))
    parser.add_argument("folder", type=Path, help="of profiles and traces")
    parser.add_argument("--model", default="11b", help="of the scripted streams: 11b (default), tiny, a folder, or '' for none")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each scripted stream (default 10)")
    parser.add_argument("--checkpoint", type=Path, help="a small checkpoint whose own decisions are recorded, in fp32")
    parser.add_argument("--scenarios", type=Path, help="that it watches")
    parser.add_argument("--limit", type=int, default=4, help="of its scenarios (default 4)")
    args = parser.parse_args(argv)
    if (args.checkpoint is None) != (args.scenarios is None):
        raise InputError("--checkpoint and --scenarios belong together; give both or neither")
    if args.action == "record":
        _run_record(args)
    elif not args.folder.is_dir():
        raise InputError(f"{args.folder} does not exist; give the folder that `record` wrote")
    else:
        _run_reproduce(args)


if __name__ == "__main__":
    sys.exit(exit_code("onsets", run))
