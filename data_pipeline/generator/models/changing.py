"""Change detector: what an attentive viewer can see change, at times that the segments have."""

from __future__ import annotations

from data_pipeline.generator.models.fields import Fields
from data_pipeline.generator.models.normalising import ROUNDING
from data_pipeline.timeline.timeline import CHANGES, Change, Timeline

STAGE = "changes"
MOST = 400


def read_changes(answer: Fields, timeline: Timeline) -> tuple[Change, ...]:
    """The changes of an answer, in order of time and with ids of our own.

    Raises:
        Unfit: a change is malformed or lies where no segment begins, ends or becomes known.
    """
    times = sorted(
        {t for s in timeline.segments for t in (s.begin, s.end, s.known_from) if t is not None and t <= timeline.duration}
    )
    found = sorted((_change(fields, times, timeline.duration) for fields in answer.objects("changes", MOST)), key=lambda c: c.t)
    unique = list({(c.t, c.kind, c.before, c.after): c for c in found}.values())
    return tuple(Change(**{**vars(c), "id": f"c{i + 1}"}) for i, c in enumerate(unique))


def _change(fields: Fields, times: list[float], duration: float) -> Change:
    t = fields.number("t", 0, duration)
    nearest = min(times, key=lambda own: abs(own - t), default=-1.0)
    if abs(nearest - t) > ROUNDING:
        raise fields.unfit("t", "no segment begins, ends or becomes known there")
    before, after = fields.text("before", empty=True), fields.text("after", empty=True)
    if before == after:
        raise fields.unfit("after", "it is the same as before, so nothing changes")
    return Change(
        id="c",
        t=nearest,
        kind=fields.choice("kind", CHANGES),
        before=before,
        after=after,
        subject=fields.text("subject", empty=True),
        salience=fields.number("salience", 0, 1),
    )
