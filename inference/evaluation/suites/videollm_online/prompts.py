"""Our wording; `--prompts FILE` replaces it."""

TEMPLATES = {
    "instruction": "Narrate what happens, briefly, at the moment at which it happens. Call the one who wears the camera C.",
}
"""Given with the first frame."""
