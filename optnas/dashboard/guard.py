"""The dashboard has no password, so it answers only to pages that it served itself.

A page of another site can make its reader's browser send requests to this machine. With DNS rebinding, the
site's name points to this machine once the page was loaded, so the browser takes the dashboard for the site.
So a request must name the dashboard by an address that it serves; and if it says from which site it comes,
that must be the dashboard too.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# Files that users upload are shown, but can run no code and read nothing of the dashboard.
_SANDBOX = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"


class Guard:
    """A WSGI application around another one; it refuses requests of other sites and disarms uploaded files.

    Args:
        app: what answers.
        host: the address that the server listens on, as its user named it.
    """

    def __init__(self, app: WSGIApplication, host: str) -> None:
        self._app = app
        self._everywhere = not host or (_is_address(host) and ip_address(host).is_unspecified)
        self._names = {"localhost", "127.0.0.1", "::1"} if self._everywhere or is_local(host) else set()
        if self._everywhere:
            self._names |= {name.lower() for name in (socket.gethostname(), socket.getfqdn())}
        self._names |= {host.lower()} - {""}

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        host, origin = environ.get("HTTP_HOST", ""), environ.get("HTTP_ORIGIN")
        if not self._serves(host):
            return self._refuse(start_response, f"Host {host!r}")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return self._refuse(start_response, f"Origin {origin!r}")

        def disarmed(status: str, headers: list[tuple[str, str]], *error: Any) -> Callable[[bytes], object]:
            added = [("X-Content-Type-Options", "nosniff")]
            if environ["PATH_INFO"].startswith("/artifacts/"):
                added.append(("Content-Security-Policy", _SANDBOX))
            return start_response(status, [*headers, *added], *error)

        return self._app(environ, disarmed)

    def _serves(self, host: str) -> bool:
        name = (urlsplit(f"//{host}").hostname or "") if _is_netloc(host) else ""
        # A name can be pointed at this machine by whoever owns it; an address cannot.
        return name in self._names or (self._everywhere and _is_address(name))

    def _refuse(self, start_response: StartResponse, what: str) -> list[bytes]:
        body = (
            f"{what} is not this dashboard, which answers to {', '.join(sorted(self._names))}"
            f"{' and every IP address of this machine' if self._everywhere else ''}. Open it by one of "
            "these, or serve it by the name you need: optnas dashboard --host NAME.\n"
        ).encode("ascii", "backslashreplace")
        kind = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
        start_response("403 Forbidden", [*kind, ("X-Content-Type-Options", "nosniff")])
        return [body]


def is_local(host: str) -> bool:
    """Whether a server on this address is reached from this machine only."""
    return host.lower() == "localhost" or (_is_address(host) and ip_address(host).is_loopback)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _is_netloc(host: str) -> bool:
    try:
        urlsplit(f"//{host}").port  # noqa: B018  (reading it checks the whole)
    except ValueError:
        return False
    return not set(host) & set("/?#@\\ ")
