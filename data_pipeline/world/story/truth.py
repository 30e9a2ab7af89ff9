"""From a record to a timeline: events with the frame that shows them first, and states with their changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from data_pipeline.timeline.timeline import Segment
from data_pipeline.world.palette import cell_words
from data_pipeline.world.story.evident import evident_at
from data_pipeline.world.story.record import Happening, Record
from data_pipeline.world.story.words import count_words, listed

SALIENCE = {"count": 0.5, "colour": 0.5, "visible": 0.3, "place": 0.2, "sign": 0.7, "action": 0.5}
SOURCE = "moss-train world"


def segments(record: Record) -> tuple[Segment, ...]:
    """All events, actions, texts and states that can be seen, in order of `begin`."""
    found = [segment for happening in record.happenings if (segment := _happened(record, happening))]
    found += _run("count", [count_words(int(n)) for n in record.visible.sum(1)], record, "count")
    found += _run("visible", [_seen(record, i) for i in range(len(record.times))], record)
    for kind in dict.fromkeys(record.kinds):
        found += _run(f"colour:{kind}", _of_kind(record, kind, lambda i, n: str(record.colours[i, n])), record, "state")
        found += _run(f"place:{kind}", _of_kind(record, kind, lambda i, n: place(record, i, n)), record)
        found += _run(f"action:{kind}", _acting(record, kind, found), record, "action")
    if any(record.sign):
        found += _run("sign", record.sign, record, "text")
    for subject, values in record.counters.items():
        found += _run(subject, values, record, "count")
    return tuple(sorted(found, key=lambda s: s.begin))


def place(record: Record, frame: int, actor: int) -> str:
    """`top left`: the third of the picture in which the centre lies."""
    x, y = (min(max(int(v[frame, actor]), 0), record.size - 1) for v in (record.x, record.y))
    return cell_words(x, y, record.size)


def _happened(record: Record, happening: Happening) -> Segment | None:
    evident = evident_at(record, happening)
    if evident is None or happening.begin > record.times[-1]:
        return None
    end = min(max(happening.end, happening.begin), record.duration)
    entities = tuple(f"{record.kinds[n]}#{n}" for n in happening.actors)
    return Segment(
        begin=happening.begin,
        end=end if happening.level == "action" else min(max(end, evident), record.duration),
        text=happening.text,
        level=happening.level,
        evident=evident,
        entities=entities,
        change=happening.change,
        salience=happening.salience,
        source=SOURCE,
    )


def _seen(record: Record, frame: int) -> str:
    return listed([record.name(frame, n) for n in range(len(record.kinds)) if record.visible[frame, n]]) or "nothing"


def _of_kind(record: Record, kind: str, value: Callable[[int, int], str]) -> list[str]:
    """The value in each frame that shows exactly one object of a kind; with two of them nobody knows which one is meant."""
    values = []
    for i in range(len(record.times)):
        shown = [n for n, k in enumerate(record.kinds) if k == kind and record.visible[i, n]]
        values.append(value(i, shown[0]) if len(shown) == 1 else "")
    return values


def _acting(record: Record, kind: str, found: Sequence[Segment]) -> list[str]:
    """What an object of a kind does in each frame, from the moment on at which it can be told."""
    doing = [s for s in found if s.level == "action" and s.entities]

    def value(i: int, n: int) -> str:
        t = record.times[i]
        for s in doing:
            if s.entities[0] == f"{kind}#{n}" and s.end is not None and s.known_from <= t < s.end:
                return s.text.split(f"{kind} ", 1)[1]
        return ""

    return _of_kind(record, kind, value) if doing else []


def _run(subject: str, values: Sequence[str], record: Record, change: str = "") -> list[Segment]:
    """One state for each stretch of frames with the same value; it holds until the first frame that shows something else."""
    found: list[Segment] = []
    begin = 0
    for i in range(1, len(values) + 1):
        if i < len(values) and values[i] == values[begin]:
            continue
        if values[begin]:
            follows = begin > 0 and (bool(values[begin - 1]) or change in ("text", "action"))
            found.append(
                Segment(
                    begin=record.times[begin],
                    end=record.times[i] if i < len(values) else record.duration,
                    text=_sentence(subject, values[begin]),
                    level="state",
                    evident=record.times[begin],
                    subject=subject,
                    value=values[begin],
                    change=change if follows else "",
                    salience=SALIENCE.get(subject.split(":")[0], 0.5),
                    source=SOURCE,
                )
            )
        begin = i
    return found


def _sentence(subject: str, value: str) -> str:
    prefix, _, name = subject.partition(":")
    if prefix == "sign":
        return f"the sign says {value}"
    if prefix == "entered":
        return f"{value} entered the box"
    return f"the {name} {'' if prefix == 'action' else 'is '}{value}" if name else value
