"""Authors that ask a model."""
