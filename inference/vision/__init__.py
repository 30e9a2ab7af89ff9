"""Frames in, cross-attention features out, for inference: chunks, fused layers, CUDA graphs, an own stream, named fast modes.

`FrameEncoder` (encoder.py) is the way in; `VisionMode` (mode.py) says what it may leave out. The weights and the exact
numbers are those of `model.vision.encoder.VisionEncoder`.
"""
