"""Damaged and hostile bytes against everything that reads a user's files: nothing but the errors that a user is told.

`python -m tests.fuzz.run --inputs 100000 --out fuzz.json` runs all targets; `--engine atheris` lets coverage guide the mutations.
"""
