"""The decoder's modules on Transformer Engine. Importing `modules` needs Transformer Engine; nothing else here does."""
