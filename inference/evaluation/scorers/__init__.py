"""From traces and scenarios to numbers: speaking and silence, answers, and both over a whole set."""
