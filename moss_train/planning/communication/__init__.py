"""What a training step sends between ranks, counted from its configuration, and the counter that holds it against real steps.

`calls` has the words, `shape` what a step works on, `rank` one rank's part of it, `tensors` its parameters, `reach` how far
gradients get; `decoder`, `pipeline`, `gradients`, `frames` and `control` count one kind of traffic each and `step` adds them up;
`counted` records what real ranks do; `links` and `scaling` predict times.
"""
