"""How fast videos become frames: the decoder alone, the loader, the loader of several ranks, and its memory over a long run.

Speeds are ratios to the reference's way, measured in turns in the same run, in CPU seconds: the machine's other work hardly
shows in those.
"""
