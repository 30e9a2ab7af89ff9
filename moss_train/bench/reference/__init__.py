"""Training the reference's way, and ours on the same samples in the same process: what `moss bench reference` measures."""
