"""A storage's URL, and what others say of it, without anything in it that may be a password.

People mistype URLs, and a mistyped password stands where no parser looks for one: what cannot be anything
else is shown, and the rest is not.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

_SQLITE = re.compile(r"sqlite[^:/@]*:")  # its URLs and files have no passwords
_PLAIN_HOST = re.compile(r"[^:/?]*(:\d*)?(?=[/?]|$)")
_SHORTEST = 4  # characters of what is looked for in other texts


def without_password(url: str) -> str:
    """A storage's URL as it may be printed: `postgresql://***@host/database?sslmode=***`."""
    shown, _ = _split(url)
    return shown


def without_secrets(text: str, url: str) -> str:
    """Somebody's message about a storage, without the parts of the URL that are not printed."""
    _, hidden = _split(url)
    parts = {part for secret in hidden for part in (secret, *re.split(r"[:/@?&=#]", secret))}
    parts |= {unquote(part) for part in parts}
    text = text.replace(url, without_password(url))
    for part in sorted(parts, key=len, reverse=True):
        if len(part) >= _SHORTEST:
            text = re.sub(rf"(?<![^\W_]){re.escape(part)}(?![^\W_])", "***", text)
    return text


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
        hidden += [value or name for name, _, value in pairs]
        query = "&".join(f"{name}=***" if equals else "***" for name, equals, _ in pairs)
    return f"{scheme}{mark}{user}{at}{place}{question}{query}", hidden
