"""Steps of fixed shape: buffers that stay where they are, CUDA graphs over them, and tokens read while the next step runs.

On a CPU the very same functions run eagerly on the same buffers, which is how they are tested.
"""
