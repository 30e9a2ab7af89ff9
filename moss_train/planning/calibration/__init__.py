"""Measured steps beside predicted ones, and rates that are fitted to them: `moss plan calibrate` and `moss plan check`."""
