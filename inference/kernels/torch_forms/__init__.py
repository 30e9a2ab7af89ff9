"""Plain torch forms: what runs on a CPU, and what the Triton forms are held against."""
