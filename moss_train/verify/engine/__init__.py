"""Checks of the decoder on Transformer Engine and of fp8, on a CUDA device: `moss verify engine`.

Each file holds one question and answers it in numbers; `report` asks all and says which bounds they keep.
"""
