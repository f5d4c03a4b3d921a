"""A storage's URL, and what others say of it, without anything in it that may be a password.

People mistype URLs, and a mistyped password stands where no parser looks for one: what cannot be anything
else is shown, and the rest is not.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

_SQLITE = re.compile(r"sqlite[^:/@]*:")  # its URLs and files have no passwords
_PLAIN_HOST = re.compile(r"[^:/?]*(:\d*)?(?=[/?]|$)")
# What options of a URL are shown as; others may be secrets (tokens, what was typed by mistake).
_SHOWN_OPTIONS = frozenset(("host", "port", "user", "dbname", "sslmode", "gssencmode", "timeout", "mode"))
_SHORTEST = 4  # characters of what is looked for in other texts


def without_password(url: str | URL) -> str:
    """A storage's URL as it may be printed: `postgresql://***@host/database?sslmode=require&x=***`."""
    shown, _ = _split(_written(url))
    return shown


def without_secrets(text: str, url: str | URL) -> str:
    """Somebody's message about a storage, without the parts of the URL that are not printed."""
    url = _written(url)
    _, hidden = _split(url)
    parts = {part for secret in hidden for part in (secret, *re.split(r"[:/@?&=#]", secret))}
    parts |= {unquote(part) for part in parts}
    text = text.replace(url, without_password(url))
    for part in sorted(parts, key=len, reverse=True):
        if len(part) >= _SHORTEST:
            text = re.sub(rf"(?<![^\W_]){re.escape(part)}(?![^\W_])", "***", text)
    return text


def _written(url: str | URL) -> str:
    return url if isinstance(url, str) else url.render_as_string(hide_password=False)


def _split(url: str) -> tuple[str, list[str]]:
    """What may be printed, and what may not."""
    if _SQLITE.match(url):
        return url, []
    scheme, mark, rest = url.rpartition("://") if url.count("://") == 1 else ("", "", url)
    hidden: list[str] = []
    user, at, rest = rest.rpartition("@")
    if at and re.search(r"[:@]", user):
        hidden.append(user)
        user = "***"
    elif mark and not at and not _PLAIN_HOST.match(rest):  # an @ was forgotten
        return f"{scheme}{mark}***", [rest]
    place, question, query = rest.partition("?")
    if question:
        pairs = [pair.partition("=") for pair in query.split("&")]
        hidden += [value or name for name, _, value in pairs if name not in _SHOWN_OPTIONS]
        query = "&".join(_option(*pair) for pair in pairs)
    return f"{scheme}{mark}{user}{at}{place}{question}{query}", hidden


def _option(name: str, equals: str, value: str) -> str:
    if not equals:
        return "***"
    return f"{name}={value}" if name in _SHOWN_OPTIONS else f"{name}=***"
