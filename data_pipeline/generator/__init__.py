"""Synthetic real-time dialogues from timelines: plan questions, answer them on what is known then, lay answers out in time.

`plan` holds what passes between the stages and `author` who writes: `templates` without any model, `models` through an endpoint.
`behaviours` are what a dialogue can teach, `stages` the pure functions, `backends` endpoints, `gates` soft checks, `build`
whole corpora (configuration, artefacts, parts, splits) and `card` the page about one.
"""
