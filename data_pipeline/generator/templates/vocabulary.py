"""All that the templates can say about the world, for the vocabulary of a small tokenizer."""

from __future__ import annotations

import itertools

from data_pipeline.generator.behaviours.alert import targets
from data_pipeline.generator.templates.phrases import TABLES, Phrases
from data_pipeline.world.palette import COLOURS, COLUMNS, KINDS, NUMBERS, ROWS

PREFIXES_OF_THINGS = ("colour", "place", "action")


def corpus(language: str = "en") -> list[str]:
    """Every wording of every request, and answers that hold every word: colours, kinds, cells, numbers and events.

    Raises:
        InputError: there are no templates for the language.
    """
    phrases = Phrases(language, "en")
    events = _events()
    subjects = ["visible", "count", "sign", *(f"{p}:{k}" for p in PREFIXES_OF_THINGS for k in KINDS)]
    asked = sorted({target for text in events for target in targets(text)})
    texts = [w for task in ("narrate", "next", "last", "current", "quiet", "retract", "count") for w in phrases.requests(task)]
    texts += [w for task in ("ask", "keep", "before") for subject in subjects for w in phrases.requests(task, subject)]
    texts += [w for task in ("alert", "yet", "count_events") for target in asked for w in phrases.requests(task, "", target)]
    values = [*COLOURS, *NUMBERS, "nothing", *(f"{r} {c}" for r, c in itertools.product(ROWS, COLUMNS))]
    things = [f"{colour} {kind}" for colour in COLOURS for kind in KINDS]
    values += things + [f"{a} and {b}" for a, b in zip(things, reversed(things), strict=True)]
    texts += [say(value) for value in values for say in (phrases.state, phrases.now)]
    texts += [phrases.events([text]) for text in events] + [phrases.happened([text]) for text in events]
    texts += [phrases.events(pair) for pair in zip(events[::7], reversed(events[::7]), strict=True)]
    texts += [phrases.not_yet(), phrases.nothing(), *(phrases.number(n) for n in range(len(TABLES[language].NUMBERS)))]
    return list(dict.fromkeys(texts))


def _events() -> list[str]:
    things = [f"{colour} {kind}" for colour in COLOURS for kind in KINDS]
    told = [f"{thing} {verb}" for thing in things for verb in ("appears", "leaves", "bounces")]
    told += [f"{kind} turns {colour}" for kind in KINDS for colour in COLOURS]
    return told + [f"{a} hits {b}" for a, b in zip(things, reversed(things), strict=True)]
