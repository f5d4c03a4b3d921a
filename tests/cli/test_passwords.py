"""However a URL is mistyped, no password in it is printed: neither by us, nor in what others say of it."""

from __future__ import annotations

import pytest

from optnas.cli.passwords import without_password, without_secrets

PW = "s3cr3t-PW"


@pytest.mark.parametrize(
    ("url", "printed"),
    [
        (f"postgresql://nas:{PW}@127.0.0.1:1/n1", "postgresql://***@127.0.0.1:1/n1"),
        (f"postgresql://{PW}:nas@127.0.0.1:1/n1?host=h&PASSWORD={PW}", None),
        (f"postgresql://nas@host/n1?password={PW}&bogus", "postgresql://nas@host/n1?password=***&***"),
        (f"postgresql://nas:{PW}@127.0.0.1:notaport/n1", "postgresql://***@127.0.0.1:notaport/n1"),
        (f"postgresql:/nas:{PW}@127.0.0.1/n1", "***@127.0.0.1/n1"),
        (f"postgresql//nas:{PW}@127.0.0.1/n1", "***@127.0.0.1/n1"),
        (f"nas:{PW}@127.0.0.1/n1", "***@127.0.0.1/n1"),
        (f"postgresql+asyncpg://nas:{PW}@127.0.0.1/n1?options={PW}", None),
        (f"redis://:{PW}@127.0.0.1/0", "redis://***@127.0.0.1/0"),
        (f"postgresql://nas:a/{PW}@127.0.0.1:1/n1", "postgresql://***@127.0.0.1:1/n1"),
        (f"postgresql://nas:a@{PW}@127.0.0.1:1/n1", "postgresql://***@127.0.0.1:1/n1"),
        (f"postgresql://nas:{PW}?x@127.0.0.1:1/n1", "postgresql://***@127.0.0.1:1/n1"),
        (f"postgresql://nas:{PW}/127.0.0.1/n1", "postgresql://***"),
        (f"postgresql://nas:{PW}", "postgresql://***"),
        (f"postgresql://nas:://{PW}@host/n1", "***@host/n1"),
        ("postgresql://me@host/nas", "postgresql://me@host/nas"),
        ("postgresql://host:5432/nas", "postgresql://host:5432/nas"),
        ("sqlite:////tmp/a:b@c.db?x=y", "sqlite:////tmp/a:b@c.db?x=y"),
        ("nas.db", "nas.db"),
        ("/home/me@work/nas.db", "/home/me@work/nas.db"),
    ],
)
def test_no_password_is_printed(url: str, printed: str | None) -> None:
    assert PW not in without_password(url)
    if printed is not None:
        assert without_password(url) == printed
    words = f'cannot reach "{url}"; could not translate host name "{PW}@127.0.0.1", user {PW}'
    if PW in url:
        assert PW not in without_secrets(words, url)
    else:
        assert without_secrets(words, url) == words


def test_a_password_is_hidden_as_it_was_written_and_as_it_was_meant() -> None:
    url = "postgresql://me:p%40ss%2Fw@host/nas"
    assert (
        without_secrets("user me, p@ss/w and p%40ss%2Fw on a pass", url) == "user me, *** and *** on a pass"
    )
