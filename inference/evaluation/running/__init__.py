"""Runs scenarios against a model: questions about clips, polls, streams, and the true dialogue under teacher forcing."""
