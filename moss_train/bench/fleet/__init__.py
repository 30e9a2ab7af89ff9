"""`moss bench fleet`: `moss train` on all GPUs of a machine, seen from outside: rates, a checkpoint, a kill, another layout."""
