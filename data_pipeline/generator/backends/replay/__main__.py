"""`python -m data_pipeline.generator.backends.replay RECORDING.jsonl --port N`: recorded answers, or a proxy that records."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from data_pipeline.generator.backends.replay.proxy import Proxy
from data_pipeline.generator.backends.replay.recording import Recording, read_recording
from data_pipeline.generator.backends.replay.server import ReplayServer, faithful
from model.errors import InputError


def main(words: Sequence[str] | None = None, stop: threading.Event | None = None) -> int:
    """Serve until `stop` is set, or the user interrupts; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m data_pipeline.generator.backends.replay",
        description="Serve recorded answers at http://127.0.0.1:PORT/v1 as an endpoint of OpenAI's protocol, "
        "or pass requests on to a real one and record its answers.",
    )
    parser.add_argument("recording", nargs="?", help="file of recorded answers (JSON lines), as model.record writes it")
    parser.add_argument("--port", type=int, default=0, help="port of this machine; any free one by default")
    parser.add_argument("--record-to", metavar="FILE", help="file to which the answers of --upstream are added")
    parser.add_argument("--upstream", metavar="URL", help="endpoint to pass requests on to, such as http://localhost:8000/v1")
    options = parser.parse_args(words)
    try:
        with _server(options) as server:
            print(f"serving at {server.url}; stop with Ctrl-C", flush=True)
            (stop or threading.Event()).wait()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0
    return 0


def _server(options: argparse.Namespace) -> ReplayServer:
    if bool(options.upstream) != bool(options.record_to):
        raise InputError("--upstream and --record-to go together: give both to record, or none to serve a recording")
    if bool(options.upstream) == bool(options.recording):
        raise InputError("give either a recording to serve, or --upstream and --record-to to record one")
    if not 0 <= options.port < 65536:
        raise InputError(f"--port is {options.port}; it must lie within 0..65535")
    if options.upstream:
        proxy = Proxy(options.upstream, Path(options.record_to))
        return ReplayServer(Recording([]), faithful, port=options.port, passing=proxy)
    return ReplayServer(read_recording(Path(options.recording)), port=options.port)


if __name__ == "__main__":
    sys.exit(main())
