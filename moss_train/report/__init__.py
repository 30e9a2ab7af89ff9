"""The run report: loss curves, scores next to the baselines, and frame strips of what was said when."""
