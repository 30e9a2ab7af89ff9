"""Evaluations inside the training loop: held-out loss, and whatever evaluators the command line passes in."""
