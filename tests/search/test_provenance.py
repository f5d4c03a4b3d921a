import importlib.util

from torch import nn

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

class Net(nn.Module):
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
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    import linecache

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
        ("super().__init__()", "super().__init__()  # edited"),
    ]:
        after = hashes(tmp_path, MODULE.replace(old, new))
        assert after[0] != before[0], old
        assert after[1] != before[1], old


def test_code_that_the_space_does_not_reach_does_not_matter(tmp_path):
    before = hashes(tmp_path, MODULE)
    assert hashes(tmp_path, MODULE.replace("return 1", "return 2")) == before


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


def test_changes_name_what_differs():
    assert changes({"torch": "2.1", "device": "cpu"}, {"torch": "2.2", "device": "cpu"}) == [
        "torch: 2.1 when the study began, 2.2 now"
    ]
