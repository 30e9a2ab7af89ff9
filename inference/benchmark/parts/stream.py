"""A stream that is watched already: from a new frame, or a prompt, to the first token after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from inference.benchmark import roofline
from inference.benchmark.bench import Bench
from inference.benchmark.generation import fixed_length, session
from inference.benchmark.meter import Meter
from inference.benchmark.statistics import describe
from inference.benchmark.workload import prompt, text

WARM_UP = 3


def reaction_times(meter: Meter, react: Callable[[int], None], undo: Callable[[], None], events: int) -> list[float]:
    """Seconds from each event to the token after it, as the host sees it.

    Args:
        react: takes the event's number and returns when its token is there.
        undo: makes the session what it was; not timed.
        events: that are counted, after a few that are not.
    """
    found = []
    for number in range(WARM_UP + events):
        meter.sync()
        begin = meter.now()
        react(number)
        found.append(meter.now() - begin)
        undo()
    return found[WARM_UP:]


def measure(bench: Bench) -> dict[str, Any]:
    """Both, with the clip's frames and a prompt in the session.

    Returns:
        `frame_p95_s` and `prompt_p95_s`; every single time under `runs`.
    """
    work, meter = bench.workload, bench.meter
    engine = bench.engine(rows=work.frames + work.text_rows + work.prompt_rows + 2, frames=work.frames + 1)
    frames = bench.clip(work.frames)
    rows = prompt(bench.config, work.frames, work.text_rows)
    question = text(bench.config, work.prompt_rows, seed=7)
    silence_and_image = [question[0], bench.config.image_token_id]
    with session(engine) as cache:
        engine.drive([fixed_length(cache, rows, 1, meter, features=engine.encode(frames))])
        length, seen = cache.length, cache.frames

        def undo() -> None:
            cache.rewind(length, seen)

        def new_frame(number: int) -> None:
            states = engine.encoder.submit(frames[number % len(frames)]).features()
            engine.drive([fixed_length(cache, silence_and_image, 1, meter, features=states)])

        def new_prompt(number: int) -> None:
            engine.drive([fixed_length(cache, question, 1, meter)])

        times = {
            "frame_s": reaction_times(meter, new_frame, undo, work.events),
            "prompt_s": reaction_times(meter, new_prompt, undo, work.events),
        }
    statistics = {name: describe(values) for name, values in times.items()}
    floors = {
        "frame_s": roofline.stream_floor(bench.config, bench.chip, work.frames, len(rows)),
        "prompt_s": roofline.decode_floor(bench.config, bench.chip, work.frames, len(rows)),
    }
    return {
        "frame_p95_s": statistics["frame_s"]["p95"],
        "prompt_p95_s": statistics["prompt_s"]["p95"],
        "runs": times,
        "statistics": statistics,
        "frames": work.frames,
        "roofline": {
            name: {"floor_s": floor, "measured_s": statistics[name]["p50"], "percent": 100 * floor / statistics[name]["p50"]}
            for name, floor in floors.items()
        },
    }
