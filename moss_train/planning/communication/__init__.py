"""What a training step sends between ranks, counted from its configuration, and the counter that holds it against real steps.

`calls` has the words, `shape` what a step works on, `places` who is whose neighbour; `decoder`, `pipeline`, `gradients`, `frames`
and `control` count one kind of traffic each, `step` adds them up, `counted` records what real ranks do, `scaling` predicts times.
"""
