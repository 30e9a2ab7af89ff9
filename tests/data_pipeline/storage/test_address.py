"""Addresses: which are understood, and what is said about others."""

from __future__ import annotations

import re

import pytest

from data_pipeline.storage.address import Address, is_remote, join
from model.errors import InputError


def test_an_address_has_a_scheme_a_host_and_a_path() -> None:
    assert Address.parse("s3://bucket/a/b/") == Address("s3", "bucket", "a/b")
    assert Address.parse("http://host:81") == Address("http", "host:81", "")
    assert Address.parse("https://host/a%20b").path == "a b" and Address.parse("s3://bucket/a%20b").path == "a%20b"
    assert str(Address.parse("msc://profile/a")) == "msc://profile/a"


@pytest.mark.parametrize(
    "address", ["ftp://host/a", "s3:///a", "gs://bucket/a", "https://", "http://host:x/a", "http://host:99999/a", "http://[::1"]
)
def test_an_address_of_another_kind_is_refused(address: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(address)} is no address of a folder; use s3://"):
        Address.parse(address)


@pytest.mark.parametrize(
    "address",
    [
        "https://me:secret@host/a",
        "https://host/a?sig=secret",
        "https://host/a#secret",
        "ftp://me:secret@host/a",
        "http://me:secret@host:x/a?sig=secret",
    ],
)
def test_credentials_in_an_address_are_refused_without_repeating_them(address: str) -> None:
    with pytest.raises(
        InputError, match=r"https://host/a was given with a password|(ftp|http)://host(:x)?/a is no address"
    ) as refused:
        Address.parse(address)
    assert "secret" not in str(refused.value)


def test_remote_and_local_folders_are_told_apart() -> None:
    assert is_remote("s3://bucket/a") and not is_remote("a/b") and not is_remote("/a")
    assert join("s3://bucket/a/", "x.tar") == "s3://bucket/a/x.tar" and join("/a", "x.tar") == "/a/x.tar"
