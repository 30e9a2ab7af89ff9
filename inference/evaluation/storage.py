"""Scenarios and traces as JSON lines; whatever is wrong in a file is named with its line and field."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from inference.evaluation.schema import EVENT_KINDS, MODES, Scenario, Trace, TraceEvent
from model.errors import InputError

T = TypeVar("T")

_MOST_FRAMES = 1_000_000
"""Of a scenario; more is a slip of the pen, and counting them alone would take memory and minutes."""


def load_scenarios(path: str | Path) -> list[Scenario]:
    """Read and check a scenario file.

    Raises:
        InputError: the file is missing or empty; a line that is not JSON, lacks a field, has an unknown one or one of
            another type; times out of order or range; two scenarios of one id. The message names line and field.
    """
    scenarios = _load(Path(path), Scenario, _check_scenario)
    if not scenarios:
        raise InputError(f"{path} holds no scenario; write one JSON object a line")
    seen: set[str] = set()
    for number, scenario in enumerate(scenarios, 1):
        if scenario.id in seen:
            raise InputError(f"{path} scenario {number}: id {scenario.id!r} occurs twice; ids must be unique")
        seen.add(scenario.id)
    return scenarios


def load_scenario_files(paths: Sequence[Path], limit: int | None = None) -> list[Scenario]:
    """The first `limit` scenarios of each file, as one set. Videos of the second and later files get absolute paths.

    Raises:
        InputError: as `load_scenarios`; no file, or an id that occurs in two files.
    """
    if not paths:
        raise InputError("no scenario file was given; name at least one")
    found: list[Scenario] = []
    origin: dict[str, Path] = {}
    for path in paths:
        for scenario in load_scenarios(path)[:limit]:
            if scenario.id in origin:
                raise InputError(f"id {scenario.id!r} occurs in {origin[scenario.id]} and in {path}; ids must be unique")
            origin[scenario.id] = path
            if path is not paths[0]:
                _make_absolute(scenario, path.parent)
            found.append(scenario)
    return found


def _make_absolute(scenario: Scenario, folder: Path) -> None:
    if scenario.video:
        scenario.video = str((folder / scenario.video).absolute())
    scenario.frames = [str((folder / name).absolute()) for name in scenario.frames]


def load_traces(path: str | Path) -> list[Trace]:
    """Read and check a trace file; errors as for scenarios.

    Of a trace that is still being written (`FILE.part`) the events stand on the lines behind it, and the last line may be cut.
    """
    return _load(Path(path), Trace, _check_trace, _append_event)


def save_scenarios(path: str | Path, scenarios: Iterable[Scenario]) -> None:
    """Write a scenario file atomically."""
    write_lines(Path(path), (json.dumps(scenario_as_dict(s), ensure_ascii=False) for s in scenarios))


def scenario_as_dict(scenario: Scenario) -> dict[str, Any]:
    """Plain values of a scenario without those that say nothing."""
    values = _compact(dataclasses.asdict(scenario))
    for name in ("frames", "begin", "changes", "polls"):
        if not values[name]:
            del values[name]
    for question in values["questions"]:
        for name in ("since", "after", "meta"):
            if not question[name]:
                del question[name]
    for span in values["spans"]:
        if not span["meta"]:
            del span["meta"]
    return values


def save_traces(path: str | Path, traces: Iterable[Trace]) -> None:
    """Write a trace file atomically; fields at their default are left out of events."""
    write_lines(Path(path), (json.dumps(trace_as_dict(t), ensure_ascii=False) for t in traces))


def trace_as_dict(trace: Trace) -> dict[str, Any]:
    """Plain values of a trace, events without fields at their default."""
    values = dataclasses.asdict(trace)
    values["events"] = [_compact(event) for event in values["events"]]
    for name in ("polls", "turns", "usage", "error"):  # older readers know none of them
        if not values[name]:
            del values[name]
    return values


def trace_from_dict(row: Any) -> Trace:
    """The trace that `trace_as_dict` described.

    Raises:
        InputError: a field is missing, unknown or of a wrong type.
    """
    trace: Trace = _build(Trace, row, "")
    _check_trace(trace)
    return trace


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a text file that is either whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            for line in lines:
                file.write(line + "\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_folder(folder: Path) -> None:
    """Say before long work that its results could not be written; makes nothing.

    Raises:
        InputError: a file is in the way, or the folder may not be written to.
    """
    here = folder.absolute()
    while not here.exists() and here != here.parent:
        here = here.parent
    if not here.is_dir():
        raise InputError(f"{folder} cannot be a folder: the file {here} is in the way; choose another place")
    if not os.access(here, os.W_OK | os.X_OK):
        raise InputError(f"{folder} cannot be written: no permission in {here}; choose another place")


def _compact(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None and value != ""}


def _append_event(traces: list[Trace], row: Any) -> bool:
    """Put a line that is an event behind those of the trace above it; False where it is none."""
    if not traces or not isinstance(row, dict) or "kind" not in row:
        return False
    event = _build(TraceEvent, row, "")
    _check_trace(Trace(scenario_id="", mode=traces[-1].mode, events=[event]))
    traces[-1].events.append(event)
    return True


def _load(
    path: Path, kind: type[T], check: Callable[[T], None], absorb: Callable[[list[T], Any], bool] = lambda found, row: False
) -> list[T]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; give a JSON-lines file of {kind.__name__.lower()}s") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); give a JSON-lines file in UTF-8") from error
    found: list[T] = []
    lines = text.split("\n")
    if path.suffix == ".part":
        lines.pop()  # whoever wrote it may have been stopped in the middle of a line
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if absorb(found, row):
                continue
            value: T = _build(kind, row, "")
            check(value)
        except json.JSONDecodeError as error:
            raise InputError(f"{path} line {number} is not JSON ({error.msg} at column {error.colno}); mend the line") from error
        except InputError as error:
            raise InputError(f"{path} line {number}: {error}") from None
        found.append(value)
    return found


def _build(kind: Any, value: Any, where: str) -> Any:
    """`value` as an instance of the type `kind`; nested dataclasses and lists are built too."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _build_dataclass(kind, value, where)
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        options = [option for option in typing.get_args(kind) if option is not type(None)]
        return None if value is None else _build(options[0], value, where)
    if origin is list:
        if not isinstance(value, list):
            raise InputError(f"{where} is {value!r}; it must be a list")
        (item,) = typing.get_args(kind)
        return [_build(item, element, f"{where}[{i}]") for i, element in enumerate(value)]
    if origin is dict:
        if not isinstance(value, dict):
            raise InputError(f"{where} is {value!r}; it must be an object")
        return value
    number = (
        isinstance(value, (int, float)) and not isinstance(value, bool) and not (isinstance(value, int) and abs(value) > 1e300)
    )
    if kind is float and number:
        return float(value)
    if kind is bool and isinstance(value, bool):
        return value
    if (kind is int and number and math.isfinite(value) and value == int(value)) or (kind is str and isinstance(value, str)):
        return kind(value)
    raise InputError(f"{where} is {value!r}; it must be a {kind.__name__}")


@functools.cache
def _fields_of(kind: type[Any]) -> tuple[dict[str, Any], dict[str, dataclasses.Field[Any]]]:
    """Types and fields by name; finding them anew for each of a million events takes minutes."""
    return typing.get_type_hints(kind), {f.name: f for f in dataclasses.fields(kind)}


def _build_dataclass(kind: type[Any], value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise InputError(f"{where or kind.__name__} is {value!r}; it must be an object")
    hints, fields = _fields_of(kind)  # type: ignore[arg-type]  # classes can be hashed
    prefix = f"{where}." if where else ""
    for name in value:
        if name not in fields:
            raise InputError(f"field {prefix}{name} is not known; use {', '.join(fields)}")
    for name, f in fields.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and name not in value:
            raise InputError(f"field {prefix}{name} is missing; add it")
    return kind(**{name: _build(hints[name], content, f"{prefix}{name}") for name, content in value.items()})


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)


def _check_scenario(scenario: Scenario) -> None:
    _check_clip(scenario)
    _check_stream(scenario)
    for i, question in enumerate(scenario.questions):
        _require(question.t is None or question.t >= 0, f"questions[{i}].t is {question.t}; it must be 0 or more")
        since_ok = question.since is None or 0 <= question.since <= (math.inf if question.t is None else question.t)
        _require(since_ok, f"questions[{i}].since is {question.since} and .t is {question.t}; give 0 <= since <= t")
        earlier = all(0 <= other < i for other in question.after)
        _require(earlier, f"questions[{i}].after is {question.after}; name questions before it, counted from 0")
        _require(question.kind not in ("", "all"), f"questions[{i}].kind is {question.kind!r}; that name is taken, use another")
    behaviours = scenario.meta.get("behaviours", [])
    named = isinstance(behaviours, list) and all(isinstance(name, str) and name for name in behaviours)
    _require(named, f"meta.behaviours is {behaviours!r}; it must be a list of names")


def _check_clip(scenario: Scenario) -> None:
    """Rate, length, and where the pixels are."""
    _require(0 < scenario.fps < float("inf"), f"fps is {scenario.fps}; it must be above 0")
    _require(1 <= scenario.num_frames <= _MOST_FRAMES, f"num_frames is {scenario.num_frames}; give 1 to {_MOST_FRAMES}")
    files = len(scenario.frames)
    one = bool(scenario.video) != bool(files)
    _require(one, f"video is {scenario.video!r} and frames has {files} files; give one of the two")
    fits = not files or files == scenario.num_frames
    _require(fits, f"frames has {files} files and num_frames is {scenario.num_frames}; give one file for each frame")
    _require(0 <= scenario.begin < math.inf, f"begin is {scenario.begin}; it must be 0 or more and finite")


def _check_stream(scenario: Scenario) -> None:
    """Times of what is said, asked and true, and the prompts that are named."""
    known = len(scenario.prompts)
    last = (scenario.num_frames - 1) / scenario.fps
    for i, change in enumerate(scenario.changes):
        _require(0 <= change.t < math.inf, f"changes[{i}].t is {change.t}; it must be 0 or more and finite")
    for i, poll in enumerate(scenario.polls):
        fine = 0 <= poll.begin <= poll.end < math.inf and 0 < poll.step < math.inf
        _require(
            fine, f"polls[{i}] asks from {poll.begin} to {poll.end} every {poll.step} s; give 0 <= begin <= end and step > 0"
        )
        asks = poll.prompt is None or 0 <= poll.prompt < known
        _require(asks, f"polls[{i}].prompt is {poll.prompt}; the scenario has {known} prompts, counted from 0")
    for i, span in enumerate(scenario.spans):
        _require(0 <= span.a <= span.b < math.inf, f"spans[{i}] goes from {span.a} to {span.b}; give 0 <= a <= b")
        _require(span.a <= last + 1e-6, f"spans[{i}].a is {span.a}; the last frame is at {last:g} s")
        answers = span.prompt is None or 0 <= span.prompt < known
        _require(answers, f"spans[{i}].prompt is {span.prompt}; the scenario has {known} prompts, counted from 0")
    for i, prompt in enumerate(scenario.prompts):
        _require(0 <= prompt.t < math.inf, f"prompts[{i}].t is {prompt.t}; it must be 0 or more and finite")


def _check_trace(trace: Trace) -> None:
    if trace.mode not in MODES:
        raise InputError(f"mode is {trace.mode!r}; use one of {', '.join(MODES)}")
    for i, event in enumerate(trace.events):
        if event.kind not in EVENT_KINDS:
            raise InputError(f"events[{i}].kind is {event.kind!r}; use one of {', '.join(EVENT_KINDS)}")
