"""Endpoints that speak OpenAI's protocol: asking them, paying for them, keeping what they said, and playing it back."""
