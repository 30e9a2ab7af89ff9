"""Wording of ProactiveVideoQA's questions and of its judge. It is ours; `--prompts FILE` puts another in the questions' place."""

from __future__ import annotations

TEMPLATES = {"question": "{question}", "turn": "{text}"}
"""Of what is asked, and of what the user says later, such as a subtitle."""

JUDGE_SYSTEM = (
    "You compare what a system said about a video with the right answer. Rate how much of the right answer it says:\n"
    "3: all of its key information, small slips and other words apart.\n"
    "2: some of it, with key points missing or clearly wrong.\n"
    "1: next to nothing of it, or something else.\n"
    "Reply with the number alone."
)
JUDGE_USER = "Question: {question}\nRight answer: {truth}\nThe system said: {reply}"

REPEATS_SYSTEM = (
    "A system speaks while it watches a video. You are shown what it has said so far and what it says now. Does it say nothing "
    "now that it has not said before? Other words for the same thing are nothing new. Reply with yes or no alone."
)
REPEATS_USER = "Said so far:\n{before}\nSays now: {reply}"
