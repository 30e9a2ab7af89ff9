"""Two hundred and fifty answers that no client likes: each ends in JSON of the schema or in an error of ours, and soon."""

from __future__ import annotations

import time

import pytest

from data_pipeline.generator.backends.answers import schema_fault
from data_pipeline.generator.backends.chat import BackendError
from data_pipeline.generator.backends.replay.hostile import HOSTILE, always, at_times
from data_pipeline.generator.backends.replay.server import ReplayServer, faithful
from data_pipeline.generator.models.schemas import SCHEMAS
from tests.data_pipeline.generator.backends.requests import ANSWER, RECORDING, backend, request

LIMIT = 0.05
"""Seconds that the client waits."""
SHAPES = 10
FATAL = {
    "busy": "EndpointDown",
    "broken": "EndpointDown",
    "too_late": "EndpointDown",
    "dropped": "EndpointDown",
    "dripping": "EndpointDown",
    "dripping_headers": "EndpointDown",
    "dripping_failure": "EndpointDown",
    "refusal_field": "Refused",
    "refusal_text": "Refused",
    "filtered": "Refused",
}
"""Errors of kinds that have but one; those of others are malformed."""


def test_there_are_twenty_five_kinds() -> None:
    assert len(HOSTILE) == 25


@pytest.mark.parametrize("kind", sorted(HOSTILE))
def test_no_answer_hangs_or_gets_through(kind: str) -> None:
    with ReplayServer(RECORDING, always(kind, 0, LIMIT)) as server:
        asked = backend(
            server, timeout=LIMIT if kind in ("too_late", "dripping", "dripping_headers", "dripping_failure") else 2.0
        )
        for shape in range(SHAPES):
            begin = time.monotonic()
            with pytest.raises(BackendError) as caught:
                asked.complete(request())
            assert time.monotonic() - begin < 8
            assert type(caught.value).__name__ == FATAL.get(kind, "MalformedAnswer"), (shape, caught.value)
            told = str(caught.value)
            assert told and "\n" not in told and len(told) < 700


def test_a_patient_client_gets_through_a_storm() -> None:
    with ReplayServer(RECORDING, at_times(0.4, 7, 0.3, faithful)) as server:
        asked = backend(server, timeout=0.3, retries=6)
        good = 0
        for _ in range(40):
            try:
                answer = asked.complete(request())
            except BackendError:
                continue
            assert answer == ANSWER and not schema_fault(answer, SCHEMAS["answer"])
            good += 1
    assert good >= 20
