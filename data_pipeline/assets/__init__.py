"""A few real clips and stills with captions, questions and timed lines of our own: `CREDITS.md` says whose they are."""
