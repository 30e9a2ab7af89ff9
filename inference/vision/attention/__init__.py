"""Attention of the tower: every token of a frame attends to every token of that frame, heads of 80 in the published models.

One file for each backend: `problem()` says why it cannot be used here, `attend(q, k, v)` computes it. `choose.py` picks one.
"""
