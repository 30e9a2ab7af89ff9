"""Pages: of a run folder, and of stages with scores next to the baselines and frame strips of what was said when."""
