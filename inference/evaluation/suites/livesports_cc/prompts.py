"""Wording of LiveSports-3K-CC's request and of its judge. It is ours; `--prompts FILE` puts another in the request's place."""

from __future__ import annotations

TEMPLATES = {
    "request": "Comment on this video live, as an expert does, sentence by sentence.{title}{before}",
    "title": " Its title: {title}.",
    "before": " What has been said so far: {before}",
}
"""Of what a stream is asked at its beginning; title and words before are left out where there are none."""

JUDGE = (
    "Two commentaries on the same piece of a video follow, and what a human commentator said. Decide which of the two is nearer "
    "to the human one: first by meaning, details and main points; only where these do not decide, by tone and style. Reply with "
    "A or B alone.\n\nCommentary A:\n{a}\n\nCommentary B:\n{b}\n\nHuman commentary:\n{truth}"
)
