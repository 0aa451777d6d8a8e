"""The way to a DICOMweb server: its address, what one shows there, and what a person is told when it does not answer.

User, password and token come from the environment, or from a netrc file by way of requests; never from a command line,
and they are in no message.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from ..errors import EngineError, UserFacingError

USER, PASSWORD, TOKEN = "PROSMA_DICOMWEB_USER", "PROSMA_DICOMWEB_PASSWORD", "PROSMA_DICOMWEB_TOKEN"
REMEDY = f"Set {USER} and {PASSWORD}, or {TOKEN}, in the environment, or add the host to ~/.netrc."
AGAIN = "Its log tells why; the same call tries again."
ATTEMPTS, FIRST_WAIT_MS = 4, 500  # at one request, with 1, 2 and 4 s between them
CONNECTING_S, ANSWERING_S = 10.0, 300.0
LOCAL = ("localhost", "127.0.0.1", "::1")


class ServerGone(EngineError):
    """The server does not answer at all, so that other series need not be tried."""


def check_address(url: str) -> None:
    """EngineError bad_input for what is no address of a server, or holds a password."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    if parts.username is not None or parts.password is not None:
        reason = "The address holds a user's name or a password, which everybody on this computer can read."
        raise EngineError("bad_input", reason, REMEDY)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        reason = f"'{url}' is no address of a DICOMweb server."
        raise EngineError("bad_input", reason, "Give one like https://HOST:8042/dicom-web.")


def unsafe(url: str) -> str:
    """A notice where images and passwords travel unencrypted to another computer; else an empty text."""
    parts = urlsplit(url)
    if parts.scheme == "https" or parts.hostname in LOCAL:
        return ""
    return f"Images and passwords travel unencrypted to {parts.hostname}; an https address would prevent that."


def client_for(url: str, environment: Mapping[str, str] = os.environ):
    """A DICOMwebClient. EngineError where the library is missing or the environment holds half of what is needed."""
    try:
        from dicomweb_client.web import DICOMwebClient
        from requests import Session
        from requests.auth import HTTPBasicAuth
        from requests.utils import get_netrc_auth
    except ImportError as error:
        why = "A DICOMweb server needs the Python package dicomweb-client, which is not installed."
        raise EngineError("internal", why, "Install it: pip install './training[dicomweb]'.") from error

    class PlainWildcards(Session):
        """The client writes `*` as `%2A`, which some servers take literally."""

        def send(self, request, **options):
            request.url = request.url.replace("%2A", "*")
            return super().send(request, **options)

    session = PlainWildcards()
    token, user, password = (environment.get(name) for name in (TOKEN, USER, PASSWORD))
    if bool(user) != bool(password):
        raise EngineError("bad_input", f"Of {USER} and {PASSWORD} only one is set.", "Set both, or none.")
    if not user:
        user, password = get_netrc_auth(url) or (None, None)
    if token:
        session.auth = lambda request: _with_token(request, token)
    elif user and password:  # as bytes: requests itself would make Latin-1 of them
        session.auth = HTTPBasicAuth(user.encode(), password.encode())
    client = DICOMwebClient(url.rstrip("/"), session=session, timeout=(CONNECTING_S, ANSWERING_S))
    client.set_http_retry_params(max_attempts=ATTEMPTS, wait_exponential_multiplier=FIRST_WAIT_MS)
    return client


def _with_token(request, token: str):
    request.headers["Authorization"] = f"Bearer {token}"
    return request


@contextlib.contextmanager
def explained_for(host: str) -> Iterator[None]:
    """Errors of the client as EngineError: what the server on `host` answered, or that it is gone."""
    import requests
    from pydicom.errors import InvalidDicomError
    from retrying import RetryError

    try:
        yield
    except UserFacingError:
        raise
    except requests.HTTPError as error:
        raise _refused(host, error.response.status_code if error.response is not None else 0) from None
    except RetryError as error:  # it said "busy" each time
        code = getattr(error.last_attempt.value, "status_code", 503)
        raise _refused(host, code) from None
    except (json.JSONDecodeError, requests.exceptions.InvalidJSONError) as error:
        raise _no_dicomweb(host) from error
    except (
        requests.exceptions.ChunkedEncodingError
    ):  # of one series, perhaps: the next request shows whether it is gone
        raise EngineError("bad_input", f"The answer of the server {host} broke off.", AGAIN) from None
    except requests.RequestException as error:
        reason = f"The server {host} does not answer ({_why(error)})."
        raise ServerGone("bad_input", reason, "When it is there again, the same call goes on.") from None
    except InvalidDicomError as error:
        raise EngineError("bad_input", f"What the server {host} sent is no DICOM image.", AGAIN) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # JSON of another make
        raise _no_dicomweb(host) from error


def _why(error: Exception) -> str:
    """The innermost cause in a word or two; the outer texts name addresses with what was searched for."""
    inner: BaseException = error
    while (cause := inner.__cause__ or inner.__context__) is not None:
        inner = cause
    return getattr(inner, "strerror", None) or (
        "no answer in time" if "Timeout" in type(error).__name__ else str(inner)
    )


def _refused(host: str, code: int) -> EngineError:
    if code in (401, 403):
        return EngineError("bad_input", f"The server {host} does not let us in ({code}).", REMEDY)
    if code == 404:
        reason = f"The server {host} has nothing under that address (404)."
        return EngineError("bad_input", reason, "Check the address. Where others are found, this one is gone.")
    reason = f"The server {host} refused the request ({code})."
    return EngineError("bad_input", reason, AGAIN)


def _no_dicomweb(host: str) -> EngineError:
    reason = f"{host} does not answer as a DICOMweb server."
    return EngineError("bad_input", reason, "Check the address: it often ends with /dicom-web.")
