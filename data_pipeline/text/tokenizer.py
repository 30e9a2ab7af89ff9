"""The tokenizer: byte-level BPE with the special tokens of the family, whatever its vocabulary size."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer as RawTokenizer

from model.errors import InputError

BEGIN_OF_TEXT = "<|begin_of_text|>"
END_OF_TEXT = "<|end_of_text|>"
PAD = "<|finetune_right_pad_id|>"
START_HEADER = "<|start_header_id|>"
END_HEADER = "<|end_header_id|>"
END_OF_MESSAGE = "<|eom_id|>"
END_OF_TURN = "<|eot_id|>"
SILENCE = "<|silence|>"
ELLIPSIS = "<|...|>"
VIDEO = "<|video|>"
IMAGE = "<|image|>"

SPECIAL_TOKENS = (
    BEGIN_OF_TEXT,
    END_OF_TEXT,
    PAD,
    START_HEADER,
    END_HEADER,
    END_OF_MESSAGE,
    END_OF_TURN,
    SILENCE,
    ELLIPSIS,
    VIDEO,
    IMAGE,
)
"""Names that every tokenizer of the family must have. `<|image|>` is the last id and has no row in the head."""


class Tokenizer:
    """Ids and text. `vocab_size` is the number of rows of the model's head; `image_id` is the first id behind it.

    Attributes:
        bos_id, eos_text_id (`<|end_of_text|>`), eot_id, eom_id, pad_id, start_header_id, end_header_id,
        silence_id, ellipsis_id, video_id, image_id, vocab_size.
    """

    def __init__(self, raw: RawTokenizer, source: str = "tokenizer") -> None:
        self.raw = raw
        self.source = source
        missing = [name for name in SPECIAL_TOKENS if raw.token_to_id(name) is None]
        if missing:
            raise InputError(f"{source} lacks the special tokens {', '.join(missing)}; make one with `moss data tokenizer`")
        self.bos_id = self.id_of(BEGIN_OF_TEXT)
        self.eos_text_id = self.id_of(END_OF_TEXT)
        self.eot_id = self.id_of(END_OF_TURN)
        self.eom_id = self.id_of(END_OF_MESSAGE)
        self.pad_id = self.id_of(PAD)
        self.start_header_id = self.id_of(START_HEADER)
        self.end_header_id = self.id_of(END_HEADER)
        self.silence_id = self.id_of(SILENCE)
        self.ellipsis_id = self.id_of(ELLIPSIS)
        self.video_id = self.id_of(VIDEO)
        self.image_id = self.id_of(IMAGE)
        self.vocab_size = self.image_id
        if raw.get_vocab_size(with_added_tokens=True) != self.image_id + 1:
            raise InputError(
                f"{source}: {IMAGE} has id {self.image_id} but must be the last of the "
                f"{raw.get_vocab_size(with_added_tokens=True)} entries; make a tokenizer with `moss data tokenizer`"
            )

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Tokenizer:
        """Read a `tokenizer.json`, or the one inside a folder.

        Raises:
            InputError: the file is missing, is not a tokenizer, or lacks a special token.
        """
        file = Path(path)
        if file.is_dir():
            file = file / "tokenizer.json"
        if not file.is_file():
            raise InputError(f"tokenizer {file} does not exist; make one with `moss data tokenizer` or name another file")
        try:
            raw = RawTokenizer.from_file(str(file))
        except Exception as error:  # the library raises plain Exception on malformed content
            raise InputError(f"tokenizer {file} cannot be read ({error}); it must be a tokenizer.json") from None
        return cls(raw, str(file))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `tokenizer.json` atomically."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        temporary.write_text(json.dumps(json.loads(self.raw.to_str()), ensure_ascii=False), encoding="utf-8")
        os.replace(temporary, target)

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; names of special tokens inside it become their ids, nothing is added."""
        ids: list[int] = self.raw.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """Text of `ids`; an incomplete UTF-8 sequence ends in U+FFFD."""
        text: str = self.raw.decode([int(i) for i in ids], skip_special_tokens=skip_special)
        return text

    def id_of(self, token: str) -> int:
        """Id of one entry.

        Raises:
            InputError: there is no such entry.
        """
        value = self.raw.token_to_id(token)
        if value is None:
            raise InputError(f"{self.source} has no token {token!r}")
        return int(value)
