"""`moss data tokenizer`."""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

from model.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the action."""
    parser.add_argument("out", help="tokenizer.json to write")
    parser.add_argument("texts", nargs="*", help="folders of shards, annotation files (.jsonl) or text files to train on")
    parser.add_argument("--vocab-size", type=int, default=1000, help="rows of the model's head (default: 1000)")
    parser.add_argument(
        "--world", action="store_true", help="also train on what the world and the generator's English templates can say"
    )
    parser.add_argument(
        "--llama",
        nargs="?",
        const="",
        metavar="TOKENIZER_MODEL",
        help="build Llama 3's instead, from its tokenizer.model or the installed package llama-models",
    )


def run(args: argparse.Namespace) -> int:
    """Run it."""
    if args.llama is not None:
        from data_pipeline.text.llama_tokenizer import build_llama_tokenizer

        tokenizer = build_llama_tokenizer(args.llama or None)
    else:
        from data_pipeline.shards.corpus import corpus_texts
        from data_pipeline.text.demo_tokenizer import train_demo_tokenizer

        if not args.texts and not args.world:
            raise InputError("no texts were given to train the tokenizer on; name folders of shards or text files, or --world")
        texts = itertools.chain(corpus_texts(args.texts), _world_texts() if args.world else [])
        tokenizer = train_demo_tokenizer(texts, args.vocab_size)
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(args.out)
    print(f"{args.out}: {tokenizer.vocab_size} entries with a row in the head, <|image|> = {tokenizer.image_id}")
    return 0


def _world_texts() -> list[str]:
    from data_pipeline.generator.vocabulary import world_texts

    return world_texts()
