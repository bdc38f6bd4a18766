"""Addresses of object stores: which there are, how one is opened, what an error of one means.

    "s3://bucket/prefix", Access -> Bucket -> obstore's client -> bytes of an object

The client is obstore. It takes credentials and endpoints from the environment, as the command-line
tools of each store do, or from `storage_options`. After a fork its threads are gone and a request
would wait for ever: a forked process is refused here.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from fastload.arguments import check_integer, check_kind, shown
from fastload.errors import ResourceError, ShardError, first_line
from fastload.installation import install_command
from fastload.store.endpoints import why_no_endpoint
from fastload.store.misplaced import is_address, why_no_bucket

SCHEMES = ("s3", "gs", "az", "abfs", "abfss", "https", "http")
_GROUPS = frozenset(("client_options", "credential_provider", "config"))
# Options of the HTTP client that people also give beside those of the store.
_OF_CLIENT = frozenset(("allow_http", "allow_invalid_certificates", "timeout", "connect_timeout"))
# Which of them the client reads in the environment, as long as it is given none.
_OF_ENVIRONMENT = ("allow_invalid_certificates", "timeout", "connect_timeout", "proxy_url")
_ALLOWING_HTTP = ("AWS_ALLOW_HTTP", "AZURE_ALLOW_HTTP")
_TRUE = frozenset(("1", "true", "on", "yes", "y"))  # as object_store reads AWS_ALLOW_HTTP
_NO_RETRIES = {"max_retries": 0}  # `objects` tries again, and knows until when
_LONGEST_REQUEST = "1h"  # as good as none: obstore's own is 30 s, and `objects` has limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How data in an object store are reached.

    Attributes:
        storage_options: What obstore's stores take: `region`, `endpoint`, `access_key_id`,
            `client_options` and so on; what is missing comes from the environment.
        cache: Folder for what was read once; None for no cache.
        cache_bytes: Bytes that the cache may take; as the disk allows when None.
    """

    storage_options: Mapping[str, Any] | None = None
    cache: str | os.PathLike[str] | None = None
    cache_bytes: int | None = None

    def __post_init__(self) -> None:
        check_kind("storage_options", self.storage_options, Mapping, type(None))
        check_kind("cache", self.cache, str, os.PathLike, type(None))
        if self.cache is not None and is_address(os.fspath(self.cache)):
            raise ValueError(f"cache must be a folder of this machine, got {shown(self.cache)}")
        for key in self.storage_options or ():
            check_kind("a key of storage_options", key, str)
        if self.cache_bytes is not None:
            check_integer("cache_bytes", self.cache_bytes, 1)
            if self.cache is None:
                raise ValueError("cache_bytes limits the cache, and there is none: give cache=…")


def is_remote(path: object) -> bool:
    """Whether a path is the address of an object store that can be read."""
    return isinstance(path, str) and path.partition("://")[0].lower() in SCHEMES and "://" in path


def name_of(path: str | os.PathLike[str]) -> str:
    """The last part of an address or of a path, for titles and for names of files."""
    if is_remote(path):
        return str(path).rstrip("/").rpartition("/")[2]
    return Path(os.path.realpath(path)).name


def address_lies_within(address: str, folder: str) -> bool:
    """Whether an address is that of a folder in an object store, or of what lies below it."""
    inner, outer = (one.rstrip("/") + "/" for one in (address, folder))
    scheme, _, rest = inner.partition("://")
    return f"{scheme.lower()}://{rest}".startswith(
        outer[: len(scheme)].lower() + outer[len(scheme) :]
    )


@dataclass(eq=False)
class Bucket:
    """The objects below an address. Thread-safe; a pickle holds the address and the options.

    Attributes:
        address: Without a slash at its end.
        access: How it is reached.
    """

    address: str
    access: Access = field(default_factory=Access, repr=False)  # it may hold secrets

    def __post_init__(self) -> None:
        self.address = self.address.rstrip("/")
        if wrong := why_no_bucket(self.address):
            # Behind a "?" may be a signature, and before an "@" a password.
            shown_part = re.sub(r"//[^/]*@", "//", self.address.partition("?")[0])
            raise ShardError(wrong, where=shown_part)
        self._lock, self._store = threading.Lock(), None

    def __reduce__(self) -> tuple[type[Bucket], tuple[str, Access]]:
        return Bucket, (self.address, self.access)

    def of(self, name: str) -> str:
        """Address of an object, for messages."""
        return f"{self.address}/{name}"

    @property
    def store(self) -> Any:  # noqa: ANN401  one of obstore's stores
        """The client; it is made when it is asked for the first time.

        Raises:
            ResourceError: If this process was forked from one that has used a client.
            ShardError: If obstore is missing, or the address or an option is none that it takes.
        """
        _refuse_fork(self.address)
        with self._lock:
            if self._store is None:
                self._store = self.opened(retries=_NO_RETRIES, timeout=_LONGEST_REQUEST)
            return self._store

    def opened(self, *, retries: Mapping[str, Any], timeout: str) -> Any:  # noqa: ANN401  obstore's own
        """Another client, which tries again itself; errors as of `store`.

        Args:
            retries: obstore's `RetryConfig`.
            timeout: Of one request, such as "30s"; that of `storage_options` or of the environment
                counts before it.
        """
        _refuse_fork(self.address)
        return _opened(self.address, self.access.storage_options or {}, retries, timeout)


_first_process: int | None = None  # that has used a client: obstore's threads are in it alone


def _refuse_fork(address: str) -> None:
    global _first_process
    if _first_process is None:
        _first_process = os.getpid()
    if _first_process != os.getpid():
        raise ResourceError(
            f"{address}: this process was forked from one that reads an object store, and the"
            " client's threads are not in it; start workers with"
            ' multiprocessing_context="spawn" or "forkserver"'
        )


def _opened(
    address: str, options: Mapping[str, Any], retries: Mapping[str, Any], timeout: str
) -> Any:  # noqa: ANN401  obstore's own
    obstore = _obstore(address)
    store, client = _divided(options, timeout)
    if wrong := why_no_endpoint(address, store):
        raise ShardError(wrong, where=address)
    try:
        return obstore.store.from_url(
            _as_url(address), retry_config=retries, client_options=client, **store
        )
    except (ValueError, TypeError, obstore.exceptions.BaseError) as error:
        raise ShardError(_why_not_opened(error, [*store, *client]), where=address) from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of Rust; obstore 0.12 has some for options
            raise
        names = ", ".join(store) or "none"
        raise ShardError(
            f"the client cannot be made with the storage_options given ({names})", where=address
        ) from None


def _as_url(address: str) -> str:
    """The address as the client takes it: it decodes %20, which in a bucket is part of a name."""
    return address if address.lower().startswith("http") else address.replace("%", "%25")


def _divided(options: Mapping[str, Any], timeout: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of the store, and those of its HTTP client."""
    store: dict[str, Any] = {}
    client = dict(options.get("client_options") or {})
    for key, value in options.items():
        if key.lower().removeprefix("aws_") in _OF_CLIENT:
            client[key.lower().removeprefix("aws_")] = value
        elif key != "client_options":
            store[key] = value
    for key in _OF_ENVIRONMENT:
        if value := os.environ.get(f"AWS_{key.upper()}"):
            client.setdefault(key, value)
    allowed = any(os.environ.get(name, "").lower() in _TRUE for name in _ALLOWING_HTTP)
    if allowed or os.environ.get("GOOGLE_BASE_URL", "").startswith("http:"):
        client.setdefault("allow_http", True)
    client.setdefault("timeout", timeout)
    return store, client


def _why_not_opened(error: Exception, keys: list[str]) -> str:
    text = first_line(error)
    if type(error).__name__ == "UnknownConfigurationKeyError" or text.startswith("Invalid key"):
        return (
            f"storage_options has a key that the store does not know ({text}); see obstore's list"
        )
    if isinstance(error, TypeError):
        return f"a value of storage_options is of a wrong type ({text}); keys given: {shown(keys)}"
    if "Unable to recognise URL" in text:
        return "names no bucket; give SCHEME://BUCKET/PREFIX"
    if "Account must be specified" in text:
        return "names no storage account; set AZURE_STORAGE_ACCOUNT_NAME, or give account_name"
    return f"cannot be opened: {text}"


def _obstore(address: str) -> Any:  # noqa: ANN401  loaded when an address is read, not before
    try:
        import obstore
        import obstore.store
    except ImportError as error:
        raise ShardError(
            "object stores are read by obstore, which is not installed:"
            f" {install_command('remote')}",
            where=address,
        ) from error
    return obstore


class Judged(NamedTuple):
    """What an error of the client means.

    Attributes:
        words: What was found, and what to do.
        passing: Whether the same request may succeed a moment later.
    """

    words: str
    passing: bool


TO_READ, TO_LIST = "to get objects", "to list and get objects"
TO_WRITE = "to list, get, put and delete objects"
_NO_CREDENTIALS = (
    "no credentials were found; set them in the environment (AWS_ACCESS_KEY_ID and"
    " AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_KEY), or give"
    " storage_options; for public data storage_options={'skip_signature': True}"
)
_NO_BUCKET = "there is no such bucket; look at the address, and at the endpoint and region"
_CODES = {
    "NoSuchBucket": _NO_BUCKET,
    "ContainerNotFound": _NO_BUCKET,  # Azure's
    "InvalidAccessKeyId": "the server does not know the access key; look at AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret key is another than the server's for this access key;"
    " look at AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "the credentials have expired; get new ones",
    "InvalidRange": "the object is shorter than the manifest says; copy it again",
    "RequestTimeTooSkewed": "the clock of this machine is wrong, so the server refuses; set it",
}
_BAD_ENDPOINT = (
    "the endpoint is no https:// address; correct it, or allow http:// with AWS_ALLOW_HTTP=true"
    " (AZURE_ALLOW_HTTP for Azure)"
)
_NOT_REACHED = (
    "the server cannot be reached; look at the endpoint (AWS_ENDPOINT_URL) and at the network"
)
_NOT_TRUSTED = (
    "the server's certificate is not trusted on this machine; add its authority to those of the"
    " system, or name a file of it in SSL_CERT_FILE"
)
_NO_RANGES = "the server sends no parts of objects (HTTP ranges)"
# What stands in errors of the client, what it means, and whether it may pass.
_SIGNS = (
    ("169.254.169.254", _NO_CREDENTIALS, False),  # where a machine in a cloud finds its own
    ("169.254.170.2", _NO_CREDENTIALS, False),
    ("token request", _NO_CREDENTIALS, False),
    ("Received redirect", "the bucket is in another region; set AWS_REGION", False),
    ("builder error", _BAD_ENDPOINT, False),
    ("InvalidCertificate", _NOT_TRUSTED, False),
    ("error sending request", _NOT_REACHED, True),
    ("non-partial response", _NO_RANGES, False),
    ("Range request not supported", _NO_RANGES, False),
)


def judge(error: BaseException, right: str = TO_READ) -> Judged:
    """What an error of the client means, and whether it may pass.

    Args:
        error: Of the client.
        right: What the request needs the right to, in words.
    """
    text = str(error)
    said = re.search(r"status code: (\d{3})", text)
    status = int(said[1]) if said else 0
    if code := _code_of(text):
        return Judged(_CODES[code], passing=False)
    if isinstance(error, TimeoutError):
        return Judged("the server does not answer", passing=True)
    if isinstance(error, FileNotFoundError):
        return Judged("there is no such object; copy the data again, or correct the address", False)
    if (known := _of_sign(text)) is not None:
        return known
    if status in (401, 403) or type(error).__name__ in (
        "PermissionDeniedError",
        "UnauthenticatedError",
    ):
        need = f"; the credentials need the right {right} below this address"
        return Judged(f"permission was denied{_named(text)}{need}", passing=False)
    # 501: a method that the server does not have, such as that to list.
    if status == 501 or (400 <= status < 500 and status not in (408, 429)):
        return Judged(
            f"the server refuses the request (HTTP {status}{_named(text)})", passing=False
        )
    if status:
        return Judged(f"the server answers HTTP {status}{_named(text)}", passing=True)
    return Judged(f"the answer broke off ({first_line(error)})", passing=True)


def _of_sign(text: str) -> Judged | None:
    if unnameable := re.search(r'with invalid path: Error parsing Path "(.*?)": ', text, re.DOTALL):
        return Judged(
            f"an object has a name that is no path ({unnameable[1]!r}); rename it: without //, . or"
            " .. as a part, and without line breaks",
            passing=False,
        )
    found = (Judged(words, passing) for sign, words, passing in _SIGNS if sign in text)
    return next(found, None)


def lacks_object(error: BaseException) -> bool:
    """Whether an error of the client means that an object is missing, and not its bucket."""
    return isinstance(error, FileNotFoundError) and not _code_of(str(error))


def _code_of(text: str) -> str:
    return next((word for word in _CODES if f"<Code>{word}</Code>" in text), "")


def _named(text: str) -> str:
    found = re.search(r"<Code>(\w{1,40})</Code>", text)
    return f" ({found[1]})" if found else ""
