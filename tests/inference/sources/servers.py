"""Real servers on this machine: files over HTTP with ranges, a live MPEG transport stream, RTSP with H.264."""

from __future__ import annotations

import io
import itertools
import re
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import av
import numpy as np


def encode(levels: list[int], *, fps: int, form: str, size: int = 32, noise: int = 0) -> bytes:
    """One frame per grey level, flat or with `noise` about it, every frame a key frame."""
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=form) as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.options = {"g": "1", "bf": "0", "tune": "zerolatency", "preset": "ultrafast"}
        for level in levels:
            picture = np.clip(rng.normal(level, noise, (size, size, 3)), 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


Answer = Callable[[BaseHTTPRequestHandler, int], None]
"""Answers the n-th request."""


@contextmanager
def http(answer: Answer) -> Iterator[str]:
    """An HTTP server; gives its address."""
    requests = iter(range(10**6))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with suppress(OSError):  # the client left
                answer(self, next(requests))
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def send_file(handler: BaseHTTPRequestHandler, content: bytes, cut: int | None = None) -> None:
    """The file, or the wanted range of it; `cut`: the connection breaks after so many bytes."""
    wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range", ""))
    begin = int(wanted.group(1)) if wanted else 0
    handler.send_response(206 if wanted else 200)
    handler.send_header("Content-Type", "video/mp4")
    handler.send_header("Accept-Ranges", "bytes")
    handler.send_header("Content-Length", str(len(content) - begin))
    if wanted:
        handler.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
    handler.end_headers()
    handler.wfile.write(content[begin:] if cut is None else content[begin : begin + cut])


def send_live(handler: BaseHTTPRequestHandler, content: bytes, *, seconds: float, pieces: int = 20) -> None:
    """A transport stream at its pace, without a length; then the connection ends."""
    handler.send_response(200)
    handler.send_header("Content-Type", "video/mp2t")
    handler.send_header("Connection", "close")
    handler.end_headers()
    step = 188 * max(1, len(content) // 188 // pieces)
    for begin in range(0, len(content), step):
        handler.wfile.write(content[begin : begin + step])
        handler.wfile.flush()
        time.sleep(seconds / pieces)


class _RtspHandler(socketserver.StreamRequestHandler):
    """Just enough of RTSP 1.0 for one client: OPTIONS, DESCRIBE, SETUP (interleaved), PLAY; RTP as in RFC 6184."""

    server: _RtspServer

    def handle(self) -> None:
        session = "12345678"
        while line := self.rfile.readline():
            method = line.split(b" ")[0].decode()
            headers: dict[str, str] = {}
            while (header := self.rfile.readline().strip()) != b"":
                key, _, value = header.decode().partition(":")
                headers[key.lower()] = value.strip()
            more, body = "", ""
            if method == "OPTIONS":
                more = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
            elif method == "DESCRIBE":
                body = (
                    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=t\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
                    "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:track\r\n"
                )
                more = "Content-Type: application/sdp\r\n"
            elif method == "SETUP":
                more = f"Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: {session}\r\n"
            elif method == "PLAY":
                more = f"Session: {session}\r\n"
            answer = f"RTSP/1.0 200 OK\r\nCSeq: {headers.get('cseq', '0')}\r\n{more}Content-Length: {len(body)}\r\n\r\n{body}"
            self.wfile.write(answer.encode())
            if method == "PLAY":
                with suppress(OSError):  # the client left
                    self._play()
                return
            if method == "TEARDOWN":
                return

    def _play(self) -> None:
        number = 0
        begin = time.monotonic()
        for i, picture in enumerate(self.server.pictures):
            time.sleep(max(0.0, begin + i / self.server.fps - time.monotonic()))
            units = [unit for unit in re.split(rb"\x00\x00\x00?\x01", picture) if unit]
            for last, unit in ((k == len(units) - 1, u) for k, u in enumerate(units)):
                header = struct.pack(">BBHII", 0x80, 96 | (last << 7), number & 0xFFFF, i * 90000 // self.server.fps, 7)
                packet = header + unit.rstrip(b"\x00")
                self.wfile.write(struct.pack(">cBH", b"$", 0, len(packet)) + packet)
                number += 1


class _RtspServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    pictures: list[bytes]
    fps: int


@contextmanager
def rtsp(levels: list[int], *, fps: int) -> Iterator[str]:
    """An RTSP server that plays one frame per level, then ends the connection; gives its address."""
    content = encode(levels, fps=fps, form="h264")
    starts = [m.start() for m in re.finditer(rb"\x00\x00\x00\x01\x67", content)] + [len(content)]
    server = _RtspServer(("127.0.0.1", 0), _RtspHandler)
    server.pictures = [content[a:b] for a, b in itertools.pairwise(starts)]
    assert len(server.pictures) == len(levels), "every frame is a key frame with its parameters"
    server.fps = fps
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"rtsp://127.0.0.1:{server.server_address[1]}/live"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
