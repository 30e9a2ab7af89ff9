"""The check that a step sends what the plan says: real ranks train the tiny model of `moss verify layouts` and count.

`case` says what is trained, `trial` runs one step on a rank, `ranks` is what every process does, `report` compares and prints.
"""
