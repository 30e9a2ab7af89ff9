"""Attention over packed rows: self-attention inside each sample, cross-attention from row to its range of frames.

`plan` works out once a micro-batch which slices attend to which; the cores only follow it.
"""
