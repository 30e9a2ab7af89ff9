"""Any global batch of a run once more: which samples, how packed, what text with which loss mask, at what loss.

`place.py` finds where in the data to begin, `run.py` reads, `check.py` compares with what the run wrote down, `losses.py`
runs the model of a checkpoint, `views.py` arranges, and `terminal.py`, `page.py` and `files.py` show and write.
"""
