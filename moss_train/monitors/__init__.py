"""What watches a training run: each monitor is one file, told of the start, every step, every evaluation and the end."""
