"""Names that are loaded on first use."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from optnas._lazy import lazily


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "lazy_package"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "from optnas._lazy import lazily\n"
        "if TYPE_CHECKING:\n"
        "    from lazy_package import part as part\n"
        "    from lazy_package.home import Own as Own\n"
        "    from lazy_package.home import other as renamed\n"
        "__getattr__, __dir__, __all__ = lazily(__name__)\n"
    )
    (folder / "home.py").write_text("class Own: pass\nother = 7\n")
    (folder / "part.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder.name
    for name in [name for name in sys.modules if name.startswith(folder.name)]:
        del sys.modules[name]


def test_a_name_loads_its_home_and_no_other(package: str) -> None:
    module = __import__(package)
    assert dir(module) == module.__all__ == ["Own", "part", "renamed"]
    assert f"{package}.home" not in sys.modules
    assert module.renamed == 7
    assert module.Own is sys.modules[f"{package}.home"].Own
    assert f"{package}.part" not in sys.modules
    assert module.part is sys.modules[f"{package}.part"]
    assert vars(module)["renamed"] == 7  # found without asking again


def test_what_is_not_listed_is_no_attribute(package: str) -> None:
    module = __import__(package)
    with pytest.raises(AttributeError, match="module 'lazy_package' has no attribute 'other'"):
        _ = module.other
    load, _, names = lazily(package)
    assert load("Own") is module.Own
    assert names == module.__all__
