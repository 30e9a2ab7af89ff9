"""Replay of recorded inputs and outputs: the check that the model computes the function it is meant to compute."""
