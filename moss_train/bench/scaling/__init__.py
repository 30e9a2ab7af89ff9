"""Training steps on 1, 2, 4, 8 GPUs of one machine: how they scale, what communication is exposed; `moss bench scaling`."""
