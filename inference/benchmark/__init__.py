"""Measures the inference engine: the reference's protocol to the letter, an honest one, and the chip's limits beside them.

`python -m inference.benchmark` (or `moss bench inference`) runs the parts; each is a small file whose timing core takes its
clock, so that its formula is tested without a device. All goes into one JSON file (`results`); tables are drawn from it.
"""
