"""Looking at data before a run: what is wrong with it (`lint`), and what a model will see of it (`preview`).

Both read folders of shards, with or without `summary.json`, and annotation files; nothing is written to them.
"""
