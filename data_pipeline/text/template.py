"""Chat templates: messages to token ids, turn by turn, for training and for prompting.

`mllama` is the chat form of Llama 3 without date and default system text; `mllama_pretrain` is begin-of-text,
text, end-of-text. Every block is one tokenizer call, so no merge crosses the border of a header and an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from data_pipeline.schema import Message
from data_pipeline.text.tokenizer import END_HEADER, END_OF_TURN, START_HEADER, Tokenizer
from model.errors import InputError

TEMPLATES = ("mllama", "mllama_pretrain")
ROLES = ("system", "user", "assistant")


@dataclass
class Turn:
    """One exchange: `source` is read, `target` is learned (its closing token included)."""

    source: list[int]
    target: list[int]


def check_template(name: str) -> None:
    if name not in TEMPLATES:
        raise InputError(f"template is {name!r}; use one of {', '.join(TEMPLATES)}")


def user_block(text: str) -> str:
    """A user's turn up to where the assistant starts to speak."""
    return f"{START_HEADER}user{END_HEADER}\n\n{text}{END_OF_TURN}{START_HEADER}assistant{END_HEADER}\n\n"


def system_block(text: str) -> str:
    return f"{START_HEADER}system{END_HEADER}\n\n{text}{END_OF_TURN}"


def split_messages(messages: Sequence[Message]) -> tuple[str, list[tuple[str, str]]]:
    """The system text ('' where there is none) and the pairs (user, assistant).

    Raises:
        InputError: roles do not alternate user, assistant behind an optional system message.
    """
    rest = list(messages)
    system = ""
    if rest and rest[0].role == "system":
        system = rest.pop(0).content
    expected = ["user", "assistant"] * (len(rest) // 2)
    if not rest or [m.role for m in rest] != expected:
        roles = ", ".join(m.role if m.role in ROLES else repr(m.role) for m in messages) or "none"
        raise InputError(f"messages have the roles {roles}; they must alternate user, assistant behind an optional system")
    return system, [(rest[i].content, rest[i + 1].content) for i in range(0, len(rest), 2)]


def encode_turns(messages: Sequence[Message], tokenizer: Tokenizer, template: str = "mllama") -> list[Turn]:
    """Ids of a whole conversation; media markers stay single tokens.

    Raises:
        InputError: unknown template, or roles that do not alternate.
    """
    check_template(template)
    system, pairs = split_messages(messages)
    closing = tokenizer.eot_id if template == "mllama" else tokenizer.eos_text_id
    turns = []
    for index, (user, assistant) in enumerate(pairs):
        source = _source(system, user, tokenizer, template, first=index == 0)
        turns.append(Turn(source, [*tokenizer.encode(assistant), closing]))
    return turns


def encode_prompt(messages: Sequence[Message], tokenizer: Tokenizer, template: str = "mllama") -> list[int]:
    """Ids that a reply continues: finished turns, then the last user message, or an assistant message left open.

    Args:
        messages: an optional system message, then user and assistant in turn; the last one may be either.

    Raises:
        InputError: unknown template, or roles that do not alternate.
    """
    check_template(template)
    reply_started = bool(messages) and messages[-1].role == "assistant"
    complete = list(messages) if reply_started else [*messages, Message(role="assistant", content="")]
    turns = encode_turns(complete, tokenizer, template)
    turns[-1].target.pop()  # the closing token is for the model to say
    return [i for turn in turns for i in (*turn.source, *turn.target)]


def encode_interruption(prompt: str, tokenizer: Tokenizer) -> list[int]:
    """What a prompt puts behind the tokens of a running real-time turn: it closes the turn and opens the next."""
    return [tokenizer.eot_id, *tokenizer.encode(user_block(prompt))]


def _source(system: str, user: str, tokenizer: Tokenizer, template: str, first: bool) -> list[int]:
    prefix = [tokenizer.bos_id] if first else []
    if template == "mllama_pretrain":
        return [*prefix, *tokenizer.encode(user)]
    if first and system:
        prefix += tokenizer.encode(system_block(system))
    return [*prefix, *tokenizer.encode(user_block(user))]


def truncate_turns(turns: Sequence[Turn], limit: int) -> list[Turn]:
    """Cut a conversation to `limit` tokens, turn by turn; turns that find no room are dropped.

    Each turn shares what is left between its halves: a target shorter than half of it is kept whole, else a
    source shorter than half of it is, else both shrink in proportion.
    """
    kept: list[Turn] = []
    budget = limit
    for turn in turns:
        if budget <= 0:
            break
        source_length, target_length = shared_lengths(len(turn.source), len(turn.target), budget)
        kept.append(Turn(turn.source[:source_length], turn.target[:target_length]))
        budget -= source_length + target_length
    return kept


def shared_lengths(source: int, target: int, budget: int) -> tuple[int, int]:
    """Tokens of a turn's source and target that stay within `budget`."""
    if target * 2 < budget:
        most = budget
    elif source * 2 < budget:
        most = budget - source
    else:
        most = int(budget * (target / (source + target)))
    kept_target = min(most, target)
    return min(max(budget - kept_target, 0), source), kept_target
