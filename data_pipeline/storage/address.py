"""Addresses of folders that are not on this machine."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from model.errors import InputError

SCHEMES = ("s3", "http", "https", "msc")
_OF_HOSTS = ("http", "https")


@dataclass(frozen=True)
class Address:
    """Where a remote folder or file is."""

    scheme: str
    """s3 | http | https | msc"""
    host: str
    """Bucket of s3, profile of msc, host and port otherwise."""
    path: str
    """Without a slash at either end; empty for the root."""

    @classmethod
    def parse(cls, address: str) -> Address:
        """
        Raises:
            InputError: no address that can be read.
        """
        try:
            parts = urlsplit(address)
            usable = parts.scheme in SCHEMES and bool(parts.netloc) and (parts.scheme not in _OF_HOSTS or parts.port != 0)
        except ValueError:  # brackets or a port that are none
            usable = False
        if not usable:
            shown = re.sub(r"//[^/]*@", "//", re.split("[?#]", address)[0])  # without what may be secret
            raise InputError(
                f"{shown} is no address of a folder; use s3://BUCKET/FOLDER, http(s)://HOST/FOLDER, msc://PROFILE/FOLDER, "
                "or a local path"
            )
        if parts.query or parts.fragment or "@" in parts.netloc:
            raise InputError(
                f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path} was given with a password, a query or a "
                "fragment, which would end up in logs; put credentials into ~/.netrc, the AWS environment or an MSC profile"
            )
        path = unquote(parts.path) if parts.scheme in _OF_HOSTS else parts.path
        return cls(parts.scheme, parts.netloc, path.strip("/"))

    @property
    def root(self) -> str:
        """Scheme and host."""
        return f"{self.scheme}://{self.host}"

    def __str__(self) -> str:
        return f"{self.root}/{self.path}"


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether it is an address rather than a path of this machine."""
    return "://" in os.fspath(path)


def join(folder: str | os.PathLike[str], name: str) -> str:
    """Address or path of a file in a folder."""
    if is_remote(folder):
        return f"{os.fspath(folder).rstrip('/')}/{name}"
    return os.path.join(folder, name)
