"""The protocol: a request as its messages, and an answer's text out of whatever an endpoint sends back."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data_pipeline.generator.backends.answers import Unreadable
from data_pipeline.generator.backends.chat import ChatRequest, Refused

_SCHEMA_FOLLOWS = "\n\nAnswer with one JSON object of this schema and nothing else:\n"
_PNG = b"\x89PNG"
MOST_BYTES = 8_000_000
"""Of an answer's body; what is longer is no answer."""


@dataclass(frozen=True)
class Reply:
    """What an endpoint said."""

    text: str
    input_tokens: int | None
    """As the endpoint counts them; None where it does not say."""
    output_tokens: int | None


def payload(request: ChatRequest, response_format: str) -> dict[str, Any]:
    """Messages and form of the answer.

    Args:
        response_format: see `settings.FORMATS`.
    """
    system = request.system
    if response_format != "json_schema":
        system += _SCHEMA_FOLLOWS + json.dumps(request.schema)
    messages = [{"role": "system", "content": system}, {"role": "user", "content": _content(request)}]
    values: dict[str, Any] = {"messages": messages}
    if response_format == "json_schema":
        schema = {"name": request.role, "schema": request.schema, "strict": True}
        values["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif response_format == "json_object":
        values["response_format"] = {"type": "json_object"}
    return values


def repair_messages(answer: str, fault: str) -> list[dict[str, Any]]:
    """What is added to the messages to ask once more."""
    told = f"That cannot be used: {fault}. Answer again with one JSON object of the schema and nothing else."
    content = _whole(answer[:4000]) or "(nothing)"
    return [{"role": "assistant", "content": content}, {"role": "user", "content": _whole(told)}]


def one_line(text: str, most: int) -> str:
    """A text as it can stand in a message: one line, with whole characters alone, and not too long."""
    return _whole(" ".join(text.split()))[:most]


def _whole(text: str) -> str:
    """A text with half characters (lone surrogates, which JSON can spell and UTF-8 cannot) replaced by question marks."""
    return text.encode("utf-8", "replace").decode()


def digest(values: Mapping[str, Any]) -> str:
    """SHA-256 of what is asked, whichever model is asked, with whichever limits and in whichever form of `settings.FORMATS`."""
    messages = values.get("messages")
    if isinstance(messages, list) and messages and isinstance(messages[0], dict) and isinstance(messages[0].get("content"), str):
        # The schema stands in the message where no field of the request holds it: that is not another question.
        messages = [{**messages[0], "content": messages[0]["content"].partition(_SCHEMA_FOLLOWS)[0]}, *messages[1:]]
    return hashlib.sha256(json.dumps(messages, sort_keys=True).encode()).hexdigest()


def read_body(body: bytes) -> Reply:
    """The answer in a body of the protocol.

    Raises:
        Unreadable: there is none.
        Refused: the model or a filter of the endpoint declines.
    """
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        raise Unreadable("the endpoint sent a body that is not JSON") from None
    choices = values.get("choices") if isinstance(values, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise Unreadable("the endpoint sent no message")
    if message.get("refusal"):
        raise Refused(f"the model declines: {one_line(str(message['refusal']), 200)}")
    if choice.get("finish_reason") == "content_filter":
        raise Refused("a filter of the endpoint withholds the answer")
    text = _text(message.get("content"))
    usage = values.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    reply = Reply(text, _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")))
    if choice.get("finish_reason") == "length":
        raise Cut(reply)
    return reply


class Cut(Unreadable):
    """The answer ran into the most tokens that it may have."""

    def __init__(self, reply: Reply) -> None:
        super().__init__("it is longer than allowed and was cut off")
        self.reply = reply


def _text(content: Any) -> str:
    if isinstance(content, list):  # some endpoints give parts
        return "".join(part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))
    return content if isinstance(content, str) else ""


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _content(request: ChatRequest) -> str | list[dict[str, Any]]:
    if not request.images:
        return request.text
    parts: list[dict[str, Any]] = [{"type": "text", "text": request.text}]
    for image in request.images:
        kind = "png" if image.startswith(_PNG) else "jpeg"
        url = f"data:image/{kind};base64,{base64.b64encode(image).decode()}"
        parts.append({"type": "image_url", "image_url": {"url": url}})
    return parts
