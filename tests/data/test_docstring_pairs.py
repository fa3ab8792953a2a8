"""examples/docstrings: which functions become pairs, and that nothing held out is among those to learn from."""

import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "examples" / "docstrings" / "prepare.py"
MODULE = '''
class Door:
    def open(self, slowly=False, *, key):
        """Let somebody in,
        or a draught.

        More of it.
        """

    def close(self):
        """Call close() of the frame."""

    async def lock(self):
        """Turn the key twice."""

    def paint(self):
        pass
'''


@pytest.fixture
def prepare():
    spec = importlib.util.spec_from_file_location("docstring_pairs", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_function_becomes_a_pair(prepare, tmp_path):
    """Arguments and the first paragraph on one line, beside the name; not where that spells it out, or is not there."""
    (tmp_path / "door.py").write_text(MODULE)
    assert [
        ("(self, slowly, key) Let somebody in, or a draught.", "open"),
        ("(self) Turn the key twice.", "lock"),
    ] == list(prepare.functions(tmp_path / "door.py"))


def test_a_file_that_is_no_python_gives_none(prepare, tmp_path):
    """The standard library's own broken test files are passed over."""
    (tmp_path / "broken.py").write_text("def (:")
    assert [] == list(prepare.functions(tmp_path / "broken.py"))


def test_nothing_held_out_was_learnt(prepare, tmp_path, monkeypatch):
    """Modules lie in one part with all their functions, tests in none, and no source is in two parts."""
    for i in range(200):
        name = f"def f{i}(self):\n    " + '"""The same in every module."""\n'
        own = f"def g{i}(self):\n    " + f'"""Only in module number {i}."""\n'
        (tmp_path / f"m{i}.py").write_text(name + own)
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "t.py").write_text('def t(self):\n    """What nobody wants to learn."""\n')
    monkeypatch.setattr(prepare.sysconfig, "get_path", lambda name: str(tmp_path))
    train, val, test = prepare.pairs().values()
    assert len(train) + len(val) + len(test) == 400 - len(val) - len(test)  # of each held-out module one is left
    assert all(4 <= len(held_out) <= 34 for held_out in (val, test))  # 8 % of 200 is 16; its deviation is 3.8
    sources = [{source for source, _ in part} for part in (train, val, test)]
    assert sum(map(len, sources)) == len(set.union(*sources))
    assert "(self) What nobody wants to learn." not in set.union(*sources)
