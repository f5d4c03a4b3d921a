"""optuna-dashboard on a server of the standard library."""

from __future__ import annotations

from socketserver import ThreadingMixIn
from typing import Any
from wsgiref import simple_server

import optuna

from optnas.dashboard.guard import Guard
from optnas.dashboard.pages import Pages


class _Server(ThreadingMixIn, simple_server.WSGIServer):
    """A thread per request: a slow plot holds up nothing, and Ctrl-C reaches the server, not a request."""

    daemon_threads = True


class _Handler(simple_server.WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """The page asks every few seconds; nobody reads that."""


def make_server(storage: optuna.storages.BaseStorage, host: str, port: int) -> simple_server.WSGIServer:
    """A server of the pages of `storage` to who names it by its address; port 0 takes a free one.

    Raises:
        OSError: the address cannot be had.
    """
    app = Guard(Pages(storage), host)
    return simple_server.make_server(host, port, app, server_class=_Server, handler_class=_Handler)
