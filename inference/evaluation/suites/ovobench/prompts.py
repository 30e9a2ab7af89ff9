"""Wording of OVO-Bench's questions. It is ours; `--prompts FILE` puts the official wording, or any other, in its place."""

from __future__ import annotations

TEMPLATES = {
    "choice": (
        "Question: {question}\nOptions:\n{options}\nReply with the letter of the right option alone, without any explanation."
    ),
    "REC": (
        "In this video people may do the same thing several times. Count how often it has been done by now, whoever did it; only "
        "what is complete counts. How many times did they do this: {activity}? Reply with one number alone."
    ),
    "SSR": (
        "This video shows how something is done, step by step. One of the steps is: {step}. Is this step being done at the end "
        "of what you see? Reply with Yes or No alone."
    ),
    "CRR": (
        "A question about the end of what you see: {question} Do you see enough by now, above all in the newest frames, to "
        "answer it? Reply with Yes or No alone."
    ),
    "REC_push": "Count how many times they do this: {activity}. Whenever it is complete once more, say the number so far.",
    "SSR_push": "These are the steps of what is done here:\n{steps}\nWhenever a step begins, say its letter.",
    "CRR_push": "{question} Say nothing until you see enough to answer, and then answer at once.",
}
"""Of all tasks with options; of the three forward tasks, asked of a clip; and of the same said once to a stream."""
