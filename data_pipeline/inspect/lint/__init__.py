"""Rules that find what is wrong with data, and what is merely odd.

An error is what the loader would leave out or stop at, or what breaks the rules of a live stream; a warning is read, but
probably not meant; a note is for information. `rules.py` is the table; the files beside it hold the checks by what they
look at.
"""
