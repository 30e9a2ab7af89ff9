"""What a session remembers: keys and values of the self layers, compact keys and values of the frames, and nothing else."""
