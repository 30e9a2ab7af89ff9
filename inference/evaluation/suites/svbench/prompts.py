"""Wording of SVBench's questions and of its judge. It is ours; `--prompts FILE` puts another in the questions' place."""

from __future__ import annotations

TEMPLATES = {"question": "{question}"}

CRITERIA = {
    "SA": "semantic accuracy: the answers say what the true ones say",
    "CC": "contextual coherence: each answer fits to what was asked and said before",
    "LC": "logical consistency: the answers do not contradict each other",
    "TU": "temporal understanding: order and causes of events are right; -1 where time plays no part",
    "IC": "informational completeness: nothing that matters is missing",
    "OS": "overall: all of these together",
}

JUDGE_SINGLE = (
    "Rate how accurate an answer about a scene of a video is, from 0 (wrong or about something else) to 10 (right in all that "
    "matters). Reply with the number alone.\n\nQuestion: {question}\nTrue answer: {truth}\nAnswer: {reply}"
)
JUDGE_CHAIN = (
    "Rate the answers of a system in a dialogue about a video, each criterion from 0 (useless) to 10 (perfect):\n{criteria}\n"
    "Reply with one line for each, such as `SA: 7`, and nothing else.\n\n{dialogue}"
)
