"""A Python script, read and never run: its calls with their values, what it assigns, and where its training loop is.

Values go through what is plain to see: constants, assignments that happen once, argparse's defaults, fields of
dataclasses, entries of dictionaries, arithmetic. Everything else is unknown, and an unknown value convicts nobody.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ganeum.doctor.audit import notebook
from ganeum.errors import DataError


class Unknown:
    """A value that cannot be seen without running."""

    def __repr__(self) -> str:
        return "unknown"

    def __bool__(self) -> bool:
        return False


UNKNOWN = Unknown()
OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.truediv,
}
PLAIN = (int, float, str, bool, type(None))
UPDATES = re.compile(r"step|update|apply|optim", re.IGNORECASE)


@dataclass(frozen=True)
class Call:
    """A call: what is called, by its full name where it is imported, else as it is written (``loss.item``); its values,
    ``UNKNOWN`` where they cannot be seen; what was written there, for what is no value; whether there are more
    keywords, which cannot be seen (``**settings``)."""

    name: str
    node: ast.Call
    values: tuple[Any, ...]
    keywords: Mapping[str, Any]
    written: Mapping[str, str]
    line: int
    spread: bool = False

    def get(self, name: str, otherwise: Any = None) -> Any:
        """The value of a keyword; ``otherwise`` where it is not given."""
        return self.keywords.get(name, otherwise)

    def ends(self, *names: str) -> bool:
        """Whether the last part of the name is one of these."""
        return self.name.rpartition(".")[2] in names


@dataclass(frozen=True)
class Assignment:
    """``target = value``, both as they are written; ``known`` is the value where it can be seen."""

    target: str
    written: str
    known: Any
    node: ast.stmt
    line: int


@dataclass
class Script:
    """A script, taken apart; of a notebook's lines ``places`` says where they stand."""

    path: str
    text: str
    tree: ast.Module = field(repr=False)
    places: tuple[str, ...] = ()

    @classmethod
    def of(cls, text: str, path: str) -> Script:
        """Of a script's text, or a notebook's.

        Raises:
            DataError: it is no Python.
        """
        places: tuple[str, ...] = ()
        if notebook.is_one(text, path):
            text, places = notebook.script(text, path)
        try:
            return cls(path, text, ast.parse(text), places)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            line = getattr(error, "lineno", None)
            raise DataError(
                f"it is no Python that can be read: {getattr(error, 'msg', error)}",
                where=f"{path}, line {line}" if line else path,
                suggestion="a .py or an .ipynb file",
            ) from None

    @cached_property
    def parents(self) -> dict[ast.AST, ast.AST]:
        """Each node's own."""
        return {child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)}

    @cached_property
    def imported(self) -> dict[str, str]:
        """Name here → full name."""
        found: dict[str, str] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    first = alias.name.partition(".")[0]
                    found[alias.asname or first] = alias.name if alias.asname else first
            elif isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        return found

    def dotted(self, node: ast.AST) -> str:
        """``F.softmax`` → ``torch.nn.functional.softmax``; what is no name is ``?``."""
        if isinstance(node, ast.Name):
            return self.imported.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            return f"{self.dotted(node.value)}.{node.attr}"
        if isinstance(node, ast.Call):
            return self.dotted(node.func) + "()"
        return f"{self.dotted(node.value)}[]" if isinstance(node, ast.Subscript) else "?"

    @cached_property
    def calls(self) -> tuple[Call, ...]:
        """In the order of their lines."""
        found = [self._call(node) for node in ast.walk(self.tree) if isinstance(node, ast.Call)]
        return tuple(sorted(found, key=lambda call: (call.line, call.node.col_offset)))

    def called(self, *names: str) -> Iterator[Call]:
        """Calls whose name ends so."""
        return (call for call in self.calls if call.ends(*names))

    @cached_property
    def assignments(self) -> tuple[Assignment, ...]:
        """All of them, also of attributes and entries."""
        found = []
        for node in ast.walk(self.tree):
            value = getattr(node, "value", None)
            if value is None:
                continue
            for target in _targets(node):
                name = self.dotted(target)
                if isinstance(target, ast.Subscript):
                    key = self.value(target.slice)
                    name = f"{self.dotted(target.value)}[{key}]"
                assert isinstance(node, ast.stmt)
                found.append(Assignment(name, self.dotted(value), self.value(value), node, node.lineno))
        return tuple(sorted(found, key=lambda one: one.line))

    @cached_property
    def environment(self) -> dict[str, tuple[str, int]]:
        """Variables of the environment that it sets → value, line."""
        found = {
            one.target.removeprefix("os.environ[").rstrip("]"): (str(one.known), one.line)
            for one in self.assignments
            if one.target.startswith("os.environ[")
        }
        for call in self.calls:
            if call.name == "os.environ.setdefault" and len(call.values) == 2:
                found.setdefault(str(call.values[0]), (str(call.values[1]), call.line))
        return found

    @cached_property
    def loop(self) -> ast.For | ast.While | None:
        """The innermost loop that goes backwards through the model: the loop over batches."""
        for call in self.calls:
            loop = self.enclosing(call.node, (ast.For, ast.While)) if call.ends("backward") else None
            if isinstance(loop, (ast.For, ast.While)) and self._updates(loop):
                return loop
        return None

    def _updates(self, loop: ast.AST) -> bool:
        """Whether weights are moved there, or in a loop around it; else gradients are looked at, and nothing learns."""
        while (outer := self.enclosing(loop, (ast.For, ast.While))) is not None:
            loop = outer
        return any(
            (isinstance(node, ast.Call) and UPDATES.search(self.dotted(node.func)))
            or (isinstance(node, ast.Attribute) and node.attr == "grad")
            for node in ast.walk(loop)
        )

    @cached_property
    def managed(self) -> bool:
        """Whether Accelerate, Fabric or DeepSpeed runs the loop: number formats and places are then set elsewhere."""
        return any(
            call.name.partition(".")[0] in ("accelerator", "fabric", "engine", "model_engine") for call in self.calls
        )

    @cached_property
    def trains(self) -> bool:
        """Whether it is seen to train at all."""
        return any(call.ends("backward") or call.name.endswith("Trainer") for call in self.calls)

    def in_loop(self, node: ast.AST, *, always: bool = False) -> bool:
        """Whether it happens in the loop over batches; ``always``: and not only every so many steps, or in no step."""
        at: ast.AST | None = node
        guarded = False
        while at is not None and at is not self.loop:
            if isinstance(at, (ast.FunctionDef, ast.Lambda)):
                return False
            guarded = guarded or (isinstance(at, ast.If) and at is not node)
            at = self.parents.get(at)
        return at is not None and not (always and guarded)

    def enclosing(self, node: ast.AST, kinds: tuple[type[ast.AST], ...]) -> ast.AST | None:
        """The nearest of these around it."""
        at = self.parents.get(node)
        while at is not None and not isinstance(at, kinds):
            at = self.parents.get(at)
        return at

    def under(self, node: ast.AST, *names: str) -> bool:
        """Whether it stands in a ``with`` of one of these, or in a function that is decorated so."""
        at: ast.AST | None = node
        while at is not None:
            said = [item.context_expr for item in at.items] if isinstance(at, (ast.With, ast.AsyncWith)) else []
            said += at.decorator_list if isinstance(at, ast.FunctionDef) else []
            if any(self.dotted(one).rstrip("()").rpartition(".")[2] in names for one in said):
                return True
            at = self.parents.get(at)
        return False

    def inside(self, node: ast.AST) -> str:
        """The names of the functions and classes around it, joined by dots."""
        names = []
        at = self.parents.get(node)
        while at is not None:
            if isinstance(at, (ast.FunctionDef, ast.ClassDef)):
                names.append(at.name)
            at = self.parents.get(at)
        return ".".join(reversed(names))

    def where(self, line: int) -> str:
        """For a finding."""
        return self.places[line - 1] if self.places else f"{self.path}, line {line}"

    def keyed(self) -> Iterator[tuple[str, ast.expr]]:
        """Everything that is given a name, in whatever way: assignments, keywords of calls, entries of dictionaries."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Assign):
                yield from ((target.id, node.value) for target in node.targets if isinstance(target, ast.Name))
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
                yield node.target.id, node.value
            elif isinstance(node, ast.Call):
                yield from ((word.arg, word.value) for word in node.keywords if word.arg)
            elif isinstance(node, ast.Dict):
                for key, entry in zip(node.keys, node.values, strict=True):
                    if isinstance(key, ast.Constant) and isinstance(key.value, str):
                        yield key.value, entry

    # ------------------------------------------------------------------------------------------------- values

    @cached_property
    def _constants(self) -> dict[str, ast.expr]:
        """Names that are assigned once; those of two values are unknown."""
        found: dict[str, list[ast.expr]] = {}
        for node in ast.walk(self.tree):
            for target in _targets(node):
                if isinstance(target, ast.Name) and getattr(node, "value", None) is not None:
                    found.setdefault(target.id, []).append(node.value)  # type: ignore[attr-defined]
            if isinstance(node, (ast.AugAssign, ast.For)) and isinstance(node.target, ast.Name):
                found.setdefault(node.target.id, []).extend([ast.Name("?"), ast.Name("?")])
        return {name: values[0] for name, values in found.items() if len({ast.dump(value) for value in values}) == 1}

    @cached_property
    def _fields(self) -> dict[str, Any]:
        """What an attribute or an entry of somebody's settings is: argparse's defaults, dataclasses, dictionaries."""
        self.__dict__["_fields"] = {}  # while they are read, one may refer to another: that one is then unknown
        found: dict[str, list[Any]] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
                keywords = {word.arg: word.value for word in node.keywords if word.arg}
                names = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
                action = keywords.get("action")
                default = ast.literal_eval(action) if isinstance(action, ast.Constant) else None
                value = {"store_true": False, "store_false": True}.get(str(default), UNKNOWN)
                if "default" in keywords:
                    value = self.value(keywords["default"])
                for name in names[-1:]:
                    found.setdefault(name.lstrip("-").replace("-", "_"), []).append(value)
            elif isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, ast.AnnAssign) and isinstance(inner.target, ast.Name) and inner.value:
                        found.setdefault(inner.target.id, []).append(self.value(inner.value))
            elif isinstance(node, ast.Dict):
                for key, entry in zip(node.keys, node.values, strict=True):
                    if isinstance(key, ast.Constant) and isinstance(key.value, str):
                        found.setdefault(key.value, []).append(self.value(entry))
        return {name: values[0] for name, values in found.items() if all(value == values[0] for value in values)}

    def value(self, node: ast.AST | None, depth: int = 0) -> Any:
        """What it is, as far as that can be seen; ``UNKNOWN``."""
        if depth > 12 or node is None:
            return UNKNOWN
        if isinstance(node, ast.Constant):
            return node.value if isinstance(node.value, PLAIN) else UNKNOWN
        if isinstance(node, ast.Name):
            return self.value(self._constants[node.id], depth + 1) if node.id in self._constants else UNKNOWN
        if isinstance(node, ast.Attribute):
            owner = self.dotted(node.value)
            if owner.partition(".")[0] in self.imported.values() or ("." in owner and "self" not in owner):
                return UNKNOWN
            return self._fields.get(node.attr, UNKNOWN)
        if isinstance(node, ast.Subscript):
            key = self.value(node.slice, depth + 1)
            return self._fields.get(key, UNKNOWN) if isinstance(key, str) else UNKNOWN
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Not)):
            value = self.value(node.operand, depth + 1)
            if isinstance(value, Unknown):
                return UNKNOWN
            return not value if isinstance(node.op, ast.Not) else -value if isinstance(value, (int, float)) else UNKNOWN
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
            left, right = self.value(node.left, depth + 1), self.value(node.right, depth + 1)
            if all(isinstance(side, (int, float)) for side in (left, right)):
                try:
                    return OPERATORS[type(node.op)](left, right)
                except (ArithmeticError, OverflowError):
                    return UNKNOWN
            return UNKNOWN
        if isinstance(node, (ast.List, ast.Tuple)):
            return [self.value(entry, depth + 1) for entry in node.elts]
        return UNKNOWN

    def _call(self, node: ast.Call) -> Call:
        keywords: dict[str, Any] = {}
        written: dict[str, str] = {}
        unseen = False
        for word in node.keywords:
            if word.arg is not None:
                keywords[word.arg] = self.value(word.value)
                written[word.arg] = ast.unparse(word.value)
                continue
            spread = self._constants.get(word.value.id) if isinstance(word.value, ast.Name) else word.value
            unseen = unseen or not isinstance(spread, ast.Dict)
            if isinstance(spread, ast.Dict):
                for key, entry in zip(spread.keys, spread.values, strict=True):
                    if isinstance(key, ast.Constant) and isinstance(key.value, str):
                        keywords.setdefault(key.value, self.value(entry))
                        written.setdefault(key.value, ast.unparse(entry))
        values = tuple(self.value(argument) for argument in node.args)
        return Call(self.dotted(node.func), node, values, keywords, written, node.lineno, unseen)


def _targets(node: ast.AST) -> list[ast.expr]:
    """What an assignment is to."""
    if isinstance(node, ast.Assign):
        return node.targets
    return [node.target] if isinstance(node, ast.AnnAssign) else []
