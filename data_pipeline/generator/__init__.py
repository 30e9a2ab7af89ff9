"""Synthetic real-time dialogues from timelines: plan questions, answer them on what is known by then, lay the answers out in time.

`plan` holds what passes between the stages and `author` who writes: `templates` without any model, `models` through an endpoint.
`behaviours` are what a dialogue can teach, `stages` the pure functions, `backends` the endpoints, `gates` the soft checks, `build` whole
corpora (configuration, artefacts, parts, splits) and `card` the page about one.
"""
