"""Wording of OmniMMI's questions and of its judge. It is ours; `--prompts FILE` puts another in the questions' place."""

from __future__ import annotations

TEMPLATES = {
    "question": "{question}",
    "next_step": "{question} Choose the next step from this list: {vocabulary}.",
    "alert": "{question}",
    "overheard": "{conversation}",
}
"""Of questions about clips, of those with a list to choose from, of what a stream is asked to call out, and of talk that is not
meant for the model."""

JUDGE_SYSTEM = (
    "You compare what a system answered with the right answer. Other words for the same thing are right. Reply with yes or no, "
    "whether they mean the same, and a whole number from 0 to 5, how much they have in common. Example: yes 5. Say nothing else."
)
JUDGE_USER = "Question: {question}\nRight answer: {truth}\nThe system answered: {reply}"
