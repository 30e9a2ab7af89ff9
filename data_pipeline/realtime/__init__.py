"""Real-time dialogues with exact times: who says what when, laid out into frames, silence and text at a rate of speech.

`dialogue` holds the types, `layout` puts words into the slots of frames, `render` writes the messages that a model learns,
`grammar` is the automaton that such a stream obeys, `rules` are the hard validators, `scenario` is the twin for evaluation.
"""
