"""The stages that make a dialogue of a timeline, as pure functions."""
