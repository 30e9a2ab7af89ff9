"""The judge that `--judge` names: asked once for each thing, in parallel, and remembered."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from inference.evaluation.judge.cache import ReplyCache, key_of
from inference.evaluation.judge.endpoint import Endpoint
from inference.evaluation.judge.judge import JudgeRequest
from inference.evaluation.judge.replies import without_thoughts
from model.errors import InputError

ATTEMPTS = 3
"""Times that a thing is asked until a reply holds a verdict."""


class OpenJudge:
    """A model behind an endpoint, or its recorded replies alone.

    Args:
        model: its name, part of what a reply is remembered by.
        cache: replies so far; new ones are added.
        endpoint: None asks nobody: what the cache lacks is an error.
        concurrency: requests under way at the same time.
        max_tokens: of a reply.
        on_done: called with (things judged, all things).
    """

    def __init__(
        self,
        model: str,
        cache: ReplyCache,
        endpoint: Endpoint | None,
        *,
        concurrency: int = 8,
        max_tokens: int = 1024,
        on_done: Callable[[int, int], None] | None = None,
    ) -> None:
        if concurrency < 1 or max_tokens < 1:
            raise InputError(f"the judge's concurrency is {concurrency} and max_tokens {max_tokens}; both must be at least 1")
        self.name = model
        self.asked = 0
        """Requests that went to the endpoint."""
        self._cache, self._endpoint, self.on_done = cache, endpoint, on_done
        self._concurrency, self._max_tokens = concurrency, max_tokens
        self._lock = threading.Lock()

    def ask(self, requests: Sequence[JudgeRequest[Any]]) -> list[Any]:
        """The verdict of each request, in their order; equal requests are asked once.

        Raises:
            InputError: see `inference.evaluation.judge.judge.Judge.ask`; or nothing was recorded and there is no endpoint.
        """
        distinct = {self._key(request, 0): request for request in requests}
        verdicts: dict[str, str] = {}
        with ThreadPoolExecutor(self._concurrency) as pool:
            futures = {key: pool.submit(self._reply, request) for key, request in distinct.items()}
            try:
                for key, future in futures.items():
                    verdicts[key] = future.result()
                    if self.on_done is not None:
                        self.on_done(len(verdicts), len(distinct))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        # Each request reads for itself: equal messages may be read in different ways.
        return [request.read(without_thoughts(verdicts[self._key(request, 0)])) for request in requests]

    def _reply(self, request: JudgeRequest[Any]) -> str:
        """A reply that holds a verdict."""
        fault = ""
        for attempt in range(ATTEMPTS):
            reply = self._said(request, attempt)
            try:
                request.read(without_thoughts(reply))
            except ValueError as error:
                fault = str(error)
            else:
                return reply
        raise InputError(
            f"the judge {self.name} gave no verdict on {request.what} in {ATTEMPTS} attempts (the last one: {fault}); use "
            "another model, or remove its lines from the cache and run again"
        )

    def _said(self, request: JudgeRequest[Any], attempt: int) -> str:
        key = self._key(request, attempt)
        known = self._cache.get(key)
        if known is not None:
            return known
        if self._endpoint is None:
            raise InputError(
                f"no reply of {self.name} on {request.what} is recorded; give --judge an address, or the cache of that run"
            )
        reply = self._endpoint.complete(request.messages, **self._settings(attempt))
        with self._lock:
            self.asked += 1
        self._cache.put(key, self.name, request.what, reply)
        return reply

    def _settings(self, attempt: int) -> dict[str, Any]:
        # The likeliest reply had no verdict: another one may.
        return {"temperature": 0.0 if attempt == 0 else 0.7, "max_tokens": self._max_tokens, "seed": attempt}

    def _key(self, request: JudgeRequest[Any], attempt: int) -> str:
        return key_of(self.name, request.messages, self._settings(attempt), attempt)


def add_judge_arguments(parser: argparse.ArgumentParser) -> None:
    """--judge, --judge-model, --judge-key-env, --judge-cache, --judge-concurrency."""
    parser.add_argument(
        "--judge",
        metavar="URL",
        help=(
            "address of an endpoint of OpenAI's protocol that judges free answers, such as http://localhost:8000/v1; `replay` "
            "asks nobody and takes what --judge-cache has (default: what needs a judge is not scored)"
        ),
    )
    parser.add_argument("--judge-model", metavar="NAME", help="model that judges; part of what its replies are remembered by")
    parser.add_argument(
        "--judge-key-env", default="OPENAI_API_KEY", metavar="VARIABLE", help="holds the key, if any (default OPENAI_API_KEY)"
    )
    parser.add_argument(
        "--judge-cache", type=Path, metavar="FILE", help="where replies are kept (default: judge.jsonl in the folder of --out)"
    )
    parser.add_argument("--judge-concurrency", type=int, default=8, metavar="N", help="requests at the same time (default 8)")


def judge_from(args: argparse.Namespace, out: Path) -> OpenJudge | None:
    """The judge of parsed arguments; None where there is none.

    Args:
        out: folder of the evaluation, for the cache.

    Raises:
        InputError: a model without an address or the other way round, a bad address, a damaged cache.
    """
    if args.judge is None:
        if args.judge_model is not None or args.judge_cache is not None:
            raise InputError("--judge is missing; give the judge's address, or `replay` for recorded replies alone")
        return None
    if args.judge_model is None:
        raise InputError("--judge needs --judge-model; name the model that judges")
    path = args.judge_cache or out / "judge.jsonl"
    if args.judge == "replay" and not path.is_file():
        raise InputError(f"--judge replay takes replies from {path}, which does not exist; give --judge-cache")
    endpoint = None
    if args.judge != "replay":
        endpoint = Endpoint(url=args.judge, model=args.judge_model, key_env=args.judge_key_env)
    return OpenJudge(args.judge_model, ReplyCache(path), endpoint, concurrency=args.judge_concurrency)
