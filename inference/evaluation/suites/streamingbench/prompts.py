"""Wording of StreamingBench's questions. It is ours; `--prompts FILE` puts the official wording, or any other, in its place."""

from __future__ import annotations

TEMPLATES = {
    "choice": (
        "Look at the video and answer the question with one of its options. Reply with the letter of the right option alone, "
        "which is A, B, C or D.\n\nQuestion: {question}\n\nOptions:\n{options}\n\nThe right option is:"
    ),
    "sequential": (
        "Look at the video and answer the question with one of its options. Reply with the letter of the right option alone, "
        "which is A, B, C or D.\n\n{context}\n\nThis is what is asked now; it may refer to the questions before.\n"
        "Question: {question}\n\nOptions:\n{options}\n\nThe right option is:"
    ),
    "sequential_turn": "At {time} somebody asked: {question} The options were: {options}. The right answer was {answer}.",
    "poll": '{question} Has the moment come to say "{output}"? Reply with yes or no alone.',
    "poll_then": "{question} That moment is now. Reply with what is to be said alone.",
    "push": "{question}",
}
"""Of all tasks with options; of sequential questions, whose {context} is one `sequential_turn` for each question before, with its
true answer; of the proactive task: asked every second, asked when the moment has come, and said once to a stream."""
