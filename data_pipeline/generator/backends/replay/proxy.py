"""A server between a client and an endpoint that writes down what the endpoint answers."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from urllib.parse import urlsplit

from data_pipeline.generator.backends.answers import Unreadable, read_answer
from data_pipeline.generator.backends.chat import Refused
from data_pipeline.generator.backends.replay.recording import role_of
from data_pipeline.generator.backends.replay.server import Response, failure
from data_pipeline.generator.backends.wire import MOST_BYTES, digest, read_body
from model.errors import InputError

PATIENCE = 600.0
"""Seconds that the endpoint may take; the client's own limit is the one that counts."""


class Proxy:
    """Passes requests on, with the client's key, and adds each answer that is a JSON object to a recording.

    Keys and headers are not written.

    Args:
        upstream: address of the endpoint.
        file: JSON lines as `recording.read_recording` reads them.

    Raises:
        InputError: the address is none, or the file cannot be written.
    """

    def __init__(self, upstream: str, file: Path) -> None:
        url = urlsplit(upstream)
        if url.scheme not in ("http", "https") or not url.netloc:
            raise InputError(f"--upstream is {upstream!r}; give the address of an endpoint, such as http://localhost:8000/v1")
        self._url, self._file, self._lock = upstream.rstrip("/") + "/chat/completions", file, threading.Lock()
        try:
            with file.open("a", encoding="utf-8"):
                pass
        except OSError as error:
            raise InputError(
                f"--record-to {file} cannot be written ({error.strerror}); give a file in a folder that exists"
            ) from None

    def __call__(self, body: bytes, headers: dict[str, str]) -> Response:
        """What the endpoint sends for a request."""
        import httpx

        from data_pipeline.generator.backends.deadline import Failure, bounded_client, within

        sent = {"content-type": "application/json", "accept-encoding": "identity"}
        sent |= {name: value for name, value in headers.items() if name.lower() == "authorization"}
        found = b""
        try:
            with (
                within(PATIENCE),
                bounded_client(PATIENCE) as client,
                client.stream("POST", self._url, content=body, headers=sent) as response,
            ):
                for piece in response.iter_bytes():
                    found += piece
                    if len(found) > MOST_BYTES:
                        return failure(502, "the endpoint's answer is too long")
        except Failure as error:
            told = {name: value for name, value in error.headers.items() if name in ("retry-after", "content-type")}
            return Response(error.body, error.status, told)
        except (httpx.HTTPError, OSError) as error:
            return failure(502, f"the endpoint gives no answer: {type(error).__name__}")
        self._store(body, found)
        return Response(found)

    def _store(self, request: bytes, body: bytes) -> None:
        values = json.loads(request)
        try:
            answer = read_answer(read_body(body).text, {"type": "object"})
        except (Unreadable, Refused):
            return  # nothing that could be replayed; the client sees it all the same
        line = json.dumps({"role": role_of(values), "digest": digest(values), "answer": answer}, ensure_ascii=False)
        with self._lock, self._file.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
