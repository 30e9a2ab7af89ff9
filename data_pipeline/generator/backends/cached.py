"""Answers that were given before, by the digest of all that they depend on."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any

from data_pipeline.generator.backends.answers import schema_fault
from data_pipeline.generator.backends.chat import ChatRequest
from data_pipeline.generator.backends.cost import Usage
from data_pipeline.generator.backends.endpoint import EndpointBackend


class CachedBackend:
    """Asks a backend once for each request; files `<folder>/<role>/<ab>/<digest>.json` hold the answers.

    Threads with the same request wait for the one that asks. A file that is damaged counts as missing.
    """

    def __init__(self, backend: EndpointBackend, folder: Path) -> None:
        self._backend = backend
        self._folder = Path(folder)
        self._lock = threading.Lock()
        self._asking: dict[str, threading.Lock] = {}

    @property
    def identity(self) -> str:
        """That of the backend."""
        return self._backend.identity

    def usage(self) -> Usage:
        """What was asked, and what did not have to be."""
        return self._backend.usage()

    def complete(self, request: ChatRequest) -> dict[str, Any]:
        """The answer, from the folder or from the backend.

        Raises:
            BackendError: as the backend. Failures are not kept: another call asks again.
        """
        key = request_digest(request, self.identity)
        with self._lock:
            asking = self._asking.setdefault(key, threading.Lock())
        try:
            with asking:
                path = self._folder / request.role / key[:2] / f"{key}.json"
                known = _read(path, request)
                if known is not None:
                    self._backend.ledger.book_cached(request.role)
                    return known
                answer = self._backend.complete(request)
                _write(path, {"model": self.identity, "text": request.text, "answer": answer})
                return answer
        finally:
            with self._lock:
                self._asking.pop(key, None)


def request_digest(request: ChatRequest, identity: str) -> str:
    """SHA-256 of a request and of whom it is put to."""
    values = {**vars(request), "images": [hashlib.sha256(image).hexdigest() for image in request.images], "identity": identity}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _read(path: Path, request: ChatRequest) -> dict[str, Any] | None:
    try:
        answer = json.loads(path.read_bytes())["answer"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return answer if isinstance(answer, dict) and not schema_fault(answer, request.schema) else None


def _write(path: Path, values: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        temporary.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
