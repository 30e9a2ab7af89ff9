"""The check that every parallel layout computes what one rank computes: a tiny model, hand-made micro-batches, a few updates.

`names` says which layouts there are, `subject` what is trained, `trial` runs one of them, `compare` holds two runs against each
other, `ranks` is what every process does, `sweep` starts the processes, `report` prints.
"""
