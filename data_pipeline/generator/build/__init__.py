"""Whole corpora: rows made in parts that are written whole or not at all, then gates, shards, scenarios and the report card.

`config` says what is made, `sources` gives videos, `rows` makes one row, `part` writes many, `folder` is what lies on the disk,
`finish` turns parts into data sets and `run` does all of it.
"""
