"""A person at the terminal: a line to type in, keys that interrupt, a view of the running stream."""
