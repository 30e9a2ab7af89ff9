"""How sure scores are: cluster bootstrap intervals, paired comparisons with p values, and tests that nothing was lost."""
