"""AWS settings, found once the way boto3 finds them, and handed to deltalake, Polars and obstore alike.

deltalake and obstore ignore `AWS_PROFILE` by themselves, and credentials copied into options are frozen for the life of
a handle; so every client gets them from here, and they are asked for again in long jobs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from vxdata.errors import InvalidInputError, StorageError, did_you_mean

CREDENTIALS_LIFE = timedelta(minutes=5)
"""How long a copy of the credentials is used; botocore renews its own at least 10 minutes before they expire."""

_OPTIONS = ("access_key_id", "secret_access_key", "session_token", "region", "endpoint_url", "profile")
_RETRIES = 4
_TIMEOUT_SECONDS = 30
"""A request that has not ended by then is given up, and tried once more."""

_RETRY_SECONDS = 1
"""So long after a request was given up it may be tried again; a PUT takes twice the time-out and this at most."""

_CONNECT_SECONDS = 5


@dataclass(frozen=True)
class Credentials:
    """One copy of the credentials, valid for a few minutes."""

    access_key_id: str
    secret_access_key: str
    session_token: str | None
    renew_at: datetime

    def __repr__(self) -> str:
        return "Credentials(...)"


@dataclass(frozen=True)
class S3Settings:
    """How to reach a bucket.

    Attributes:
        region: the AWS region.
        endpoint_url: the address of an S3-compatible store; None for AWS itself.
        credentials: gives a current copy of the credentials.
    """

    region: str
    endpoint_url: str | None
    credentials: Callable[[], Credentials]

    def is_versioned(self, bucket: str) -> bool:
        """Whether a bucket keeps, or kept, old versions of its objects; true where nobody may ask."""
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError

        c = self.credentials()
        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name=self.region,
            aws_access_key_id=c.access_key_id,
            aws_secret_access_key=c.secret_access_key,
            aws_session_token=c.session_token,
        )
        try:
            return bool(client.get_bucket_versioning(Bucket=bucket).get("Status"))
        except (BotoCoreError, ClientError):
            return True

    @property
    def is_plain_http(self) -> bool:
        """Whether the endpoint is not encrypted."""
        return (self.endpoint_url or "").startswith("http://")

    def delta_options(self, credentials: Credentials) -> dict[str, str]:
        """Return deltalake's `storage_options`; they hold a copy of the credentials."""
        options = {
            **self._object_store_options(),
            "aws_access_key_id": credentials.access_key_id,
            "aws_secret_access_key": credentials.secret_access_key,
            "aws_conditional_put": "etag",
            "timeout": f"{_TIMEOUT_SECONDS}s",
            "connect_timeout": f"{_CONNECT_SECONDS}s",
            "max_retries": str(_RETRIES),
            "retry_timeout": f"{_TIMEOUT_SECONDS + _RETRY_SECONDS}s",
        }
        return options | ({"aws_session_token": credentials.session_token} if credentials.session_token else {})

    def polars_options(self) -> dict[str, Any]:
        """Return the keywords of Polars' scans: options, and a provider that renews the credentials."""
        limits = {"max_retries": _RETRIES, "timeout": f"{_TIMEOUT_SECONDS}s", "connect_timeout": f"{_CONNECT_SECONDS}s"}
        return {
            "storage_options": self._object_store_options() | limits,
            "credential_provider": self._polars_credentials,
        }

    def obstore_keywords(self) -> dict[str, Any]:
        """Return the keywords of obstore's `S3Store`."""
        return {
            "region": self.region,
            **({"endpoint": self.endpoint_url} if self.endpoint_url else {}),
            "virtual_hosted_style_request": self.endpoint_url is None,
            "credential_provider": self._obstore_credentials,
            "client_options": {
                "allow_http": self.is_plain_http,
                "timeout": timedelta(seconds=_TIMEOUT_SECONDS),
                "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
            },
            "retry_config": {
                "max_retries": _RETRIES,
                "retry_timeout": timedelta(seconds=_TIMEOUT_SECONDS + _RETRY_SECONDS),
            },
        }

    def _object_store_options(self) -> dict[str, str]:
        options = {
            "aws_region": self.region,
            "aws_virtual_hosted_style_request": str(self.endpoint_url is None).lower(),
        }
        if self.endpoint_url:
            options |= {"aws_endpoint_url": self.endpoint_url, "aws_allow_http": str(self.is_plain_http).lower()}
        return options

    def _polars_credentials(self) -> tuple[dict[str, str], int]:
        c = self.credentials()
        values = {"aws_access_key_id": c.access_key_id, "aws_secret_access_key": c.secret_access_key}
        return values | ({"aws_session_token": c.session_token} if c.session_token else {}), int(c.renew_at.timestamp())

    def _obstore_credentials(self) -> Any:
        c = self.credentials()
        return {
            "access_key_id": c.access_key_id,
            "secret_access_key": c.secret_access_key,
            "token": c.session_token,
            "expires_at": c.renew_at,
        }


def find_s3_settings(uri: str, options: Mapping[str, str] | None = None) -> S3Settings:
    """Find region, endpoint and credentials: the caller's options first, then what boto3 finds.

    Args:
        uri: the lake's address, for messages.
        options: access_key_id, secret_access_key, session_token, region, endpoint_url, profile; each may be written
            with the prefix ``aws_`` and in capitals.

    Raises:
        InvalidInputError: an unknown option.
        StorageError: no credentials, or a profile that does not exist.
    """
    import boto3
    from botocore.exceptions import BotoCoreError

    given = _read_options(options or {})
    try:
        session = boto3.Session(
            profile_name=given.get("profile"),
            aws_access_key_id=given.get("access_key_id"),
            aws_secret_access_key=given.get("secret_access_key"),
            aws_session_token=given.get("session_token"),
            region_name=given.get("region"),
        )
        found = session.get_credentials()
        client = session.client(
            "s3", endpoint_url=given.get("endpoint_url"), region_name=session.region_name or "us-east-1"
        )
    except (BotoCoreError, ValueError) as error:
        raise StorageError(f"{error}", uri=uri, operation="sign in to", retryable=False) from error
    if found is None:
        raise StorageError(
            "no AWS credentials were found. Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run "
            "'aws sso login'.",
            uri=uri,
            operation="sign in to",
            retryable=False,
        )
    endpoint = str(client.meta.endpoint_url)
    is_aws = endpoint.endswith((".amazonaws.com", ".amazonaws.com.cn"))
    return S3Settings(str(client.meta.region_name), None if is_aws else endpoint, lambda: _copy(found, uri))


def _read_options(options: Mapping[str, str]) -> dict[str, str]:
    given = {name.lower().removeprefix("aws_"): value for name, value in options.items()}
    given = {{"endpoint": "endpoint_url", "default_region": "region"}.get(name, name): v for name, v in given.items()}
    given.pop("allow_http", None)  # follows from the endpoint
    for name in given:
        if name not in _OPTIONS:
            raise InvalidInputError(f"unknown storage option {name!r}.{did_you_mean(name, _OPTIONS)}")
    return given


def _copy(found: Any, uri: str) -> Credentials:
    from botocore.exceptions import BotoCoreError

    try:
        frozen = found.get_frozen_credentials()
    except BotoCoreError as error:
        raise StorageError(f"{error}", uri=uri, operation="renew the credentials of", retryable=False) from error
    return Credentials(frozen.access_key, frozen.secret_key, frozen.token, datetime.now(UTC) + CREDENTIALS_LIFE)
