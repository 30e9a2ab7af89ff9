"""English phrases. Wordings of a request are chosen by task and by the prefix of the subject; `*` serves all others.

`{name}` is what follows the prefix of a subject, `{prefix}` the prefix, `{clause}` an event as the world tells it, `{text}` any
other event. No wording occurs twice: the words alone tell what is asked for.
"""

from __future__ import annotations

REQUESTS: dict[str, dict[str, tuple[str, ...]]] = {
    "narrate": {"*": ("Tell me what happens.", "Describe what happens.", "Say what you see as it happens.")},
    "ask": {
        "visible": ("What do you see?", "What is there?"),
        "count": ("How many objects are there?", "How many objects do you see?"),
        "colour": ("What colour is the {name}?", "Which colour does the {name} have?"),
        "place": ("Where is the {name}?", "In which place is the {name}?"),
        "action": ("What does the {name} do?", "What is the {name} doing?"),
        "sign": ("What does the sign say?", "What is written there?"),
        "entered": ("How many objects went into the box?",),
        "*": ("What is the {prefix} of the {name}?", "Which {prefix} does the {name} have?"),
        "*bare": ("What is the {prefix}?", "Which {prefix} is it?"),
    },
    "keep": {"*": ("{ask} Tell me if that changes.",)},
    "count": {"*": ("Count the objects.", "Keep count of the objects.")},
    "count_events": {
        "*": ("Count how often this happens: {text}.", "Keep count of this: {text}."),
        "scene": ("Count how often {clause}.",),
    },
    "alert": {
        "*": ("Tell me when this happens: {text}.", "Let me know when this happens: {text}."),
        "scene": ("Tell me when {clause}.", "Let me know when {clause}."),
    },
    "next": {"*": ("What happens next?", "What comes next?")},
    "yet": {
        "*": ("Has this happened yet: {text}?", "Did this happen yet: {text}?"),
        "scene": ("Has {perfect} yet?",),
    },
    "last": {"*": ("What happened last?", "What was the last thing that happened?")},
    "before": {
        "visible": ("What was here before?", "What did you see before?"),
        "count": ("How many objects were there before?",),
        "colour": ("What colour was the {name} before?",),
        "place": ("Where was the {name} before?",),
        "action": ("What did the {name} do before?",),
        "sign": ("What did the sign say before?",),
        "entered": ("How many objects had gone into the box before?",),
        "*": ("What was the {prefix} of the {name} before?",),
        "*bare": ("What was the {prefix} before?",),
    },
    "current": {"*": ("What is going on?", "What is happening now?")},
    "quiet": {"*": ("Be quiet.", "Say nothing.", "Please be silent.")},
    "retract": {"*": ("Never mind.", "Forget it.", "No need to tell me.")},
}
NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
STOP = "."
AND = " and "
NOW = "now {value}"
YES = "yes, {text}"
NOT_YET = "not yet"
NOTHING = "nothing"

PLAIN: dict[str, tuple[str, ...]] = {
    "ask:visible": ("I see {x}.", "There is {x}."),
    "ask:count": ("I count {x}.", "There: {x}."),
    "ask:colour": ("It is {x}.", "The {name} is {x}."),
    "ask:place": ("It is at the {x}.", "The {name} is at the {x}."),
    "ask:action": ("It {x}.", "The {name} {x}."),
    "ask:sign": ("It says {x}.", "The sign says {x}."),
    "ask:entered": ("{X} went in.", "I counted {x}."),
    "before:visible": ("There was {x}.", "Before that I saw {x}."),
    "before:count": ("There were {x}.", "I counted {x}."),
    "before:colour": ("It was {x}.", "The {name} was {x}."),
    "before:place": ("It was at the {x}.", "The {name} was at the {x}."),
    "before:sign": ("It said {x}.",),
    "correction:visible": ("Now I see {x}.", "Now there is {x}."),
    "correction:count": ("Now I count {x}.",),
    "correction:colour": ("It is {x} now.", "Now the {name} is {x}."),
    "correction:place": ("It is at the {x} now.", "Now the {name} is at the {x}."),
    "correction:action": ("Now it {x}.", "Now the {name} {x}."),
    "correction:sign": ("Now it says {x}.",),
    "correction": ("That has changed: {x}.", "Now: {x}."),
    "count": ("{X}.", "I count {x}."),
    "count_events": ("That makes {x}.", "{X} so far."),
    "alert": ("{X}.", "Now: {x}.", "Look, {x}."),
    "narration": ("{X}.",),
    "next": ("{X}.", "Next, {x}."),
    "last": ("{X}.", "Last, {x}."),
    "not_yet": ("Not yet.", "No, not yet."),
    "yet": ("Yes, {x}.", "Yes, now {x}."),
    "*": ("{X}.",),
}
"""Sentences of the plain register by kind or task, and prefix; `{x}` is the answer, `{X}` the same with a capital."""
