"""Checks of the Triton forms. `test_triton_forms.py` runs them in a process of their own: Triton decides when it is imported
whether it compiles for a GPU or interprets."""
