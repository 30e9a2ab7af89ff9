"""Training of all parameters on one GPU, 10 bytes a parameter: does it fit, how fast, can it be saved; `moss bench full`."""
