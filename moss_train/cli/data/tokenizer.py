"""`moss data tokenizer`."""

from __future__ import annotations

import argparse

from model.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the action."""
    parser.add_argument("out", help="tokenizer.json to write")
    parser.add_argument("texts", nargs="*", help="folders of shards, annotation files (.jsonl) or text files to train on")
    parser.add_argument("--vocab-size", type=int, default=1000, help="rows of the model's head (default: 1000)")
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

        if not args.texts:
            raise InputError("no texts were given to train the tokenizer on; name folders of shards or text files")
        tokenizer = train_demo_tokenizer(corpus_texts(args.texts), args.vocab_size)
    tokenizer.save(args.out)
    print(f"{args.out}: {tokenizer.vocab_size} entries with a row in the head, <|image|> = {tokenizer.image_id}")
    return 0
