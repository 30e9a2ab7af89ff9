"""Measured times of one machine for runs on another: the file, its costs, scripted decisions."""
