"""Objects of an S3 bucket, read through signed addresses: the same range requests as of a web server."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from data_pipeline.storage.errors import StorageError
from data_pipeline.storage.http import HttpStore

_VALID_SECONDS = 3600
_CODE = re.compile(rb"<Code>(\w+)</Code>")


class S3Store(HttpStore):
    """A bucket. Endpoint, region and credentials are found the way the AWS tools do; without any it is read anonymously."""

    denied_remedy = "check the credentials (AWS_ACCESS_KEY_ID, AWS_PROFILE, ...), AWS_REGION and the policy of the bucket"

    def __init__(self, bucket: str, timeout_seconds: float) -> None:
        super().__init__(f"s3://{bucket}", timeout_seconds)
        self._bucket = bucket
        self._signer: Any = None

    def _url(self, key: str, address: str) -> str:
        # botocore comes with Energon; boto3 does not
        from botocore.exceptions import BotoCoreError

        try:
            return self._client().generate_presigned_url(  # type: ignore[no-any-return]
                "get_object", Params={"Bucket": self._bucket, "Key": key}, ExpiresIn=_VALID_SECONDS
            )
        except BotoCoreError as error:
            raise StorageError(f"{address} cannot be read: {error}; check the settings of AWS on this machine") from error

    def _client(self) -> Any:
        if self._signer is None:
            import botocore
            import botocore.session
            from botocore.config import Config

            session = botocore.session.get_session()
            signature = "s3v4"
            if session.get_credentials() is None:
                signature = botocore.UNSIGNED
                self.denied_remedy = "no credentials of AWS were found on this machine: set AWS_PROFILE or AWS_ACCESS_KEY_ID"
            self._signer = session.create_client("s3", config=Config(signature_version=signature))
        return self._signer

    def _root_url(self) -> str:
        parts = urlsplit(self._client().meta.endpoint_url)
        return f"{parts.scheme}://{parts.netloc}"

    def _login(self) -> dict[str, str]:
        return {}

    def _status(self, response: urllib3.BaseHTTPResponse) -> str:
        try:
            code = _CODE.search(response.read(4096))
        except HTTPError:
            code = None
        return f"{response.status} {code[1].decode()}" if code else super()._status(response)
