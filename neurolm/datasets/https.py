"""Connections that other machines are reached by only with https, and what servers say about when to come back."""

import email.utils
import ipaddress
import time
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

from neurolm.config import UserError


class DownloadError(UserError):
    """A server that cannot be used: nothing more can be had from it."""


def check_url(url: str) -> None:
    """Raises DownloadError if a URL is neither https nor http on this machine."""
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise DownloadError(f"{url!r} is no place to download from; expected https://...")
    if parts.scheme == "http" and not _is_local(url):
        raise DownloadError(f"{url}: plain http is for this machine only; expected https://...")


def https_session(url: str) -> requests.Session:
    """A session for ``url`` and what it redirects to; proxies and certificates are those of the environment."""
    session = requests.Session()
    session.headers.update({"User-Agent": "neurolm", "Accept-Encoding": "identity"})
    session.mount("http://", _LocalOnly())
    session.trust_env = not _is_local(url)  # no proxy lies between us and ourselves
    return session


def retry_after_s(value: str) -> float:
    """Seconds to wait, of a Retry-After header in seconds or as a date; 0 if it says neither."""
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0


class _LocalOnly(HTTPAdapter):
    """Refuses plain http to other machines, also when a server redirects there."""

    def send(self, request: requests.PreparedRequest, *arguments: Any, **settings: Any) -> requests.Response:
        check_url(str(request.url))
        return super().send(request, *arguments, **settings)


def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
