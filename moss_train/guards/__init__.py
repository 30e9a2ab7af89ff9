"""What keeps a run from ending badly: what is done about bad numbers, signals, lost and slow ranks, and diverging copies."""
