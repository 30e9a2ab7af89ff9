"""Files of a profile of NVIDIA's multi-storage-client: whatever kind of store its configuration describes."""

from __future__ import annotations

from typing import Any

from data_pipeline.storage.errors import AbsentError, StorageError
from data_pipeline.storage.patience import PassingFault
from data_pipeline.storage.ranges import Part


class ProfileStore:
    """A profile. The client's own retries and timeouts, if its configuration has any, lie within each attempt."""

    def __init__(self, profile: str) -> None:
        self._profile = profile
        self._client: Any = None
        self._known: dict[str, Any] = {}

    def part(self, key: str, offset: int, size: int) -> Part:
        """See `Store.part`."""
        from multistorageclient.types import Range

        address = f"msc://{self._profile}/{key}"
        try:
            client = self._connect()
            if key not in self._known:
                self._known[key] = client.info(key)
            found = self._known[key]
            wanted = min(size, found.content_length - offset)
            content = bytes(client.read(key, byte_range=Range(offset, wanted))) if wanted > 0 else b""
        except FileNotFoundError as error:
            raise AbsentError(f"{address} does not exist; check the address, or copy the folder there again") from error
        except PermissionError as error:
            raise StorageError(
                f"{address} may not be read; check the credentials of the profile {self._profile} and the permissions there"
            ) from error
        except (ImportError, NotImplementedError, ValueError) as error:
            raise StorageError(
                f"{address} cannot be read: {error}; check the profile {self._profile} in the file of MSC_CONFIG"
            ) from error
        except Exception as error:  # the client has no common class for what may pass, and calls a reset a RuntimeError
            raise PassingFault(f"{type(error).__name__}: {error}") from error
        if len(content) != max(wanted, 0):
            raise PassingFault(f"the store gave {len(content):,} of {wanted:,} bytes")
        return Part(content, found.content_length, found.etag, found.last_modified)

    def _connect(self) -> Any:
        if self._client is None:
            import multistorageclient

            self._client, _ = multistorageclient.resolve_storage_client(f"msc://{self._profile}")
        return self._client
