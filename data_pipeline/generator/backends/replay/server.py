"""The server of recorded answers: `POST /v1/chat/completions` and `GET /v1/models` on a free port of this machine."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from data_pipeline.generator.backends.replay.recording import Recording
from model.errors import InputError

Answering = Callable[[dict[str, Any], dict[str, Any] | None], "Response"]
"""From a request's body and its recorded answer (None where there is none) to what is sent."""


class Response:
    """What is sent back.

    Args:
        body: bytes, or pieces of them with pauses between.
        pause: seconds before the first byte.
        pause_between: seconds between two pieces.
        drop: whether the connection is closed without an answer.
        claimed: length that the headers tell; that of the body where it is left out.
        drip: whether lines of headers follow each other without end, with `pause_between` between them.
    """

    def __init__(
        self,
        body: bytes | list[bytes],
        status: int = 200,
        headers: dict[str, str] | None = None,
        pause: float = 0.0,
        pause_between: float = 0.0,
        drop: bool = False,
        claimed: int | None = None,
        drip: bool = False,
    ) -> None:
        self.pieces = [body] if isinstance(body, bytes) else body
        self.status, self.headers = status, headers or {}
        self.pause, self.pause_between, self.drop, self.drip = pause, pause_between, drop, drip
        self.length = sum(map(len, self.pieces)) if claimed is None else claimed


def completion(content: Any, finish: str = "stop", **message: Any) -> bytes:
    """A body of the protocol."""
    text = content if isinstance(content, str) or content is None else json.dumps(content, ensure_ascii=False)
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text, **message}}
    usage = {"prompt_tokens": 100, "completion_tokens": len(text or "") // 4 + 1}
    return json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage}).encode()


def failure(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """An error of the protocol."""
    return Response(json.dumps({"error": {"message": message}}).encode(), status, headers)


def faithful(request: dict[str, Any], answer: dict[str, Any] | None) -> Response:
    """The recorded answer, or status 422 where nothing was recorded."""
    if answer is None:
        return failure(422, "nothing was recorded for this request")
    return Response(completion(answer))


class ReplayServer:
    """Serves while it is used as a context.

    Args:
        answering: makes what is sent of a request and its recorded answer.
        port: of this machine; 0 takes a free one.
        passing: makes what is sent of a request's bytes and headers instead, such as `proxy.Proxy`.

    Raises:
        InputError: the port is taken.
    """

    def __init__(
        self,
        recording: Recording,
        answering: Answering = faithful,
        port: int = 0,
        passing: Callable[[bytes, dict[str, str]], Response] | None = None,
    ) -> None:
        self.requests: list[dict[str, Any]] = []
        """Bodies of all requests so far."""
        self.headers: list[dict[str, str]] = []
        """Their headers."""
        self._stop = threading.Event()
        try:
            self._server = _Server(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise InputError(f"port {port} cannot be served ({error.strerror}); give another one, or 0 for a free one") from None
        self._passing = passing
        self._server.owner = self
        self._recording, self._answering = recording, answering
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        """For `model.base_url`."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> ReplayServer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def respond(self, body: bytes, headers: dict[str, str]) -> Response:
        """What is sent for a request."""
        try:
            values = json.loads(body)
        except ValueError:
            return failure(400, "the request is not JSON")
        if not isinstance(values, dict):
            return failure(400, "the request is no JSON object")
        if self._passing is None:  # one that passes on runs for hours
            self.requests.append(values)
            self.headers.append(headers)
        if self._passing is not None:
            return self._passing(body, headers)
        return self._answering(values, self._recording.find(values))

    @property
    def stopped(self) -> bool:
        """Whether it serves no more."""
        return self._stop.is_set()

    def wait(self, seconds: float) -> None:
        """Sleep, or until the server stops."""
        if seconds:
            self._stop.wait(seconds)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    owner: ReplayServer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self.close_connection = True
        known = {"object": "list", "data": [{"id": "replay", "object": "model", "created": 0, "owned_by": "replay"}]}
        found = (
            Response(json.dumps(known).encode()) if self.path == "/v1/models" else failure(404, f"there is no {self.path} here")
        )
        with contextlib.suppress(OSError):
            self._send(found, self.server.owner)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        owner = self.server.owner
        if self.path != "/v1/chat/completions":
            response = failure(404, f"there is no {self.path} here")
        else:
            response = owner.respond(body, dict(self.headers))
        owner.wait(response.pause)
        self.close_connection = True  # a misbehaving answer must not leave bytes for the next one
        if response.drop:
            return
        with contextlib.suppress(OSError):  # the client has gone, as it should when an answer takes too long
            self._send(response, owner)

    def _send(self, response: Response, owner: ReplayServer) -> None:
        self.send_response(response.status)
        while response.drip and not owner.stopped:
            self.send_header("x-more", "x")
            self.flush_headers()
            owner.wait(response.pause_between)
        for name, value in {"content-type": "application/json", **response.headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(response.length))
        self.send_header("connection", "close")
        self.end_headers()
        for piece in response.pieces:
            self.wfile.write(piece)
            self.wfile.flush()
            owner.wait(response.pause_between)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged."""
