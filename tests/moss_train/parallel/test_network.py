"""Addresses of this machine; those of several hosts are in tests/cluster/hosts."""

from __future__ import annotations

import os

import pytest

from moss_train.parallel.network import choose_interface, interface_of, is_own, own_address


def test_loopback_is_reached_from_itself() -> None:
    assert own_address("127.0.0.1") == "127.0.0.1"
    assert interface_of("127.0.0.1") == "lo"
    assert is_own("127.0.0.1") and is_own("localhost")


def test_a_name_that_leads_nowhere_has_no_address() -> None:
    assert own_address("no-such-host.invalid") is None
    assert not is_own("no-such-host.invalid")
    assert interface_of("192.0.2.1") is None


@pytest.mark.parametrize(
    ("first", "given", "expected"), [("127.0.0.1", None, None), ("localhost", "eth7", "eth7"), ("", None, None)]
)
def test_one_host_and_a_given_interface_stay_as_they_are(
    monkeypatch: pytest.MonkeyPatch, first: str, given: str | None, expected: str | None
) -> None:
    monkeypatch.setenv("MASTER_ADDR", first)
    if given is None:
        monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    else:
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", given)
    choose_interface()
    assert os.environ.get("GLOO_SOCKET_IFNAME") == expected
