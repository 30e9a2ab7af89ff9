"""Does a cheaper way to train converge like the usual one, within the spread of seeds; `moss bench convergence`."""
