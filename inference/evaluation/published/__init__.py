"""Published figures of other systems as data, and what lmms-eval found of a checkpoint beside them."""
