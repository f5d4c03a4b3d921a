import importlib.util
import linecache
import subprocess
import sys
from functools import partial

import pytest
from torch import nn

from optnas.hub import nasbench201
from optnas.search.provenance import changes, source_hash
from optnas.space import Chain, Choice, Repeat

MODULE = """
from torch import nn
from optnas.space import Choice

WIDTHS = (16, 32)

def helper(width):
    return nn.Linear(4, width)

def unused():
    return 1

class Base(nn.Module):
    def forward(self, x):
        return x

class Net(Base):
    LAYERS = 1

    @property
    def shape(self):
        return self.layer.weight.shape

    @staticmethod
    def wider(width):
        return width + 1

    def __init__(self, width):
        super().__init__()
        self.layer = helper(width)

def space(trial):
    return Net(trial.suggest_categorical("width", WIDTHS))

node = Choice("op", {"net": space})
"""


def load(tmp_path, source):
    path = tmp_path / "space.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location("space_under_test", path)
    module = sys.modules["space_under_test"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    linecache.checkcache()
    return module


def hashes(tmp_path, source):
    module = load(tmp_path, source)
    return source_hash(module.space), source_hash(module.node)


def test_a_change_anywhere_the_space_reaches_changes_the_hash(tmp_path):
    before = hashes(tmp_path, MODULE)
    assert before == hashes(tmp_path, MODULE)
    for old, new in [
        ("nn.Linear(4, width)", "nn.Linear(4, 2 * width)"),  # in a helper of a class of the space
        ("(16, 32)", "(16, 64)"),  # a global constant
        ("super().__init__()", "super().__init__(), 1"),
        ("def helper(width):", "def helper(width, bias=True):"),
        ("    LAYERS = 1", "    LAYERS = 2"),
        ("return self.layer.weight.shape", "return self.layer.weight.ndim"),
        ("return width + 1", "return width + 2"),
        ("return x", "return -x"),
    ]:
        after = hashes(tmp_path, MODULE.replace(old, new))
        assert after[0] != before[0], old
        assert after[1] != before[1], old


@pytest.mark.parametrize(
    ("old", "new"), [("return 1", "return 2"), ("super().__init__()", "super().__init__()  # edited")]
)
def test_code_that_the_space_does_not_reach_and_comments_do_not_matter(tmp_path, old, new):
    before = hashes(tmp_path, MODULE)
    assert hashes(tmp_path, MODULE.replace(old, new, 1)) == before


def test_a_file_that_is_edited_while_it_runs_does_not_matter(tmp_path):
    module = load(tmp_path, MODULE)
    before = source_hash(module.space)
    (tmp_path / "space.py").write_text("# a line more\n" * 3 + MODULE.replace("(4, width)", "(5, width)"))
    linecache.checkcache()
    assert source_hash(module.space) == before


def leaf(trial):
    return nn.Identity()


def test_nodes_differ_by_their_fields():
    nodes = [
        Choice("op", {"a": leaf}),
        Choice("op", {"b": leaf}),
        Repeat("op", leaf, 1, 2),
        Repeat("op", leaf, 1, 3),
        Chain(op=leaf),
    ]
    assert len({source_hash(node) for node in nodes}) == len(nodes)


def wide(trial, width, scale=1.0):
    return nn.Linear(width, 1)


def other(trial, width, scale=1.0):
    return nn.Linear(width, 2)


class Space:
    def __init__(self, width):
        self.width = width

    def build(self, trial):
        return nn.Linear(self.width, 1)

    def __call__(self, trial):
        return self.build(trial)


def test_spaces_differ_by_what_they_were_made_with():
    spaces = [
        *(partial(wide, width=width) for width in (4, 5)),
        partial(wide, width=4, scale=2.0),
        partial(other, width=4),
        partial(nn.Linear, 4),
        partial(nasbench201.network, channels=4),
        partial(nasbench201.network, channels=8),
        *(Space(width) for width in (4, 5)),
        *(Space(width).build for width in (6, 7)),
    ]
    assert len({source_hash(space) for space in spaces}) == len(spaces)
    assert source_hash(partial(wide, width=4)) == source_hash(spaces[0])


def test_a_file_that_is_run_has_the_space_of_the_same_file_imported(tmp_path):
    (tmp_path / "one.py").write_text(
        MODULE
        + """
if __name__ == "__main__":
    import one
    from optnas.search.provenance import source_hash
    print(source_hash(space) == source_hash(one.space), source_hash(node) == source_hash(one.node))
"""
    )
    run = subprocess.run([sys.executable, "one.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert run.stdout == "True True\n"


def test_changes_name_what_differs():
    assert changes({"torch": "2.1", "device": "cpu"}, {"torch": "2.2", "device": "cpu"}) == [
        "torch: 2.1 when the study began, 2.2 now"
    ]
