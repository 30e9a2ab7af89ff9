"""A seeded procedural video world with exact ground truth.

Textured objects in six colours appear, move, bounce, collide, change colour and leave before a dark noisy
background. A clip is a pure function of an integer seed; train, validation and test own disjoint ranges of seeds.
`scene` draws the story, `render` the pixels and patch labels, `video` real H.264 files, `tasks` the samples,
`scenarios` the held-out streaming evaluation and `generate` writes whole sets.
"""
