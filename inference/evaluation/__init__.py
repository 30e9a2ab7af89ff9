"""Scenarios, runners, traces and scorers. Scorers see a trace and a scenario, never the engine."""
