"""The tower's layer for training: few passes over memory between its products, and a backward pass of its own."""
