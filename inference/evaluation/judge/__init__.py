"""A language model as the judge of free answers: asked once for each thing, remembered for ever."""
