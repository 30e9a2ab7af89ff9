"""Putting several samples into one sequence, with the bounds that keep them apart."""
