"""Pixels: which frames of a video to take, decoding them, and fitting frames and images into the model's square.

Used by training and inference alike: both see the same uint8 frames.
"""
