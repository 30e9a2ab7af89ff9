"""Frames of a global batch spread over all ranks: who encodes which, and how pixels, features and gradients travel."""
