"""Training steps at the widths of real models on one GPU: how fast, what of it where, what bounds it; `moss bench train`."""
