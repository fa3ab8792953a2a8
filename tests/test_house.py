"""What holds the house up: rooms import downwards, doors hold no logic, the light commands stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from ganeum.cli.reference import reference

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "ganeum"
FLOORS = [
    {"errors", "units"},
    {"config", "hardware"},
    {"record"},
    {"models", "data"},
    {"step"},
    {"plan"},
    {"train"},
    {"inference"},
    {"queue", "doctor"},
    {"cli"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted(SOURCE.rglob("*.py"))
DOORS = sorted([ROOT / "train.py", ROOT / "run_manager.py", *ROOT.glob("data/*/prepare.py")])


def room_of(file: Path) -> str | None:
    first = file.relative_to(SOURCE).parts[0].removesuffix(".py")
    return None if first in ("__init__", "__main__") else first


def imports(file: Path) -> set[str]:
    """Full names of what a file imports from this package, wherever in the file it does so."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{file}: imports name their room in full"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.startswith("ganeum.")}


def test_every_room_has_its_floor() -> None:
    """A new room is put into the order of imports, or this fails."""
    assert {room_of(file) for file in FILES} - {None} == set(FLOOR_OF)


@pytest.mark.parametrize("file", [f for f in FILES if room_of(f)], ids=lambda f: str(f.relative_to(SOURCE)))
def test_imports_go_down_only(file: Path) -> None:
    """A file imports from its own room and from lower floors, never from above or beside."""
    room = room_of(file)
    assert room is not None
    for name in imports(file):
        other = name.split(".")[1]
        if other in FLOOR_OF and other != room:
            assert FLOOR_OF[other] < FLOOR_OF[room], f"{room} imports {name}"


def test_no_import_cycles() -> None:
    """No file imports, directly or through others, itself at the time it is loaded."""
    modules = {
        ".".join(("ganeum", *f.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__"): f for f in FILES
    }
    graph: dict[str, set[str]] = {}
    for module, file in modules.items():
        top = {n for n in ast.parse(file.read_text()).body if isinstance(n, (ast.Import, ast.ImportFrom))}
        graph[module] = set()
        for node in top:
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    full = f"{node.module}.{alias.name}"
                    graph[module] |= {full if full in modules else node.module} & set(modules)
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " → ".join((*path, module))
        if module not in done:
            for other in graph[module] - {module}:
                visit(other, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("door", DOORS, ids=lambda f: str(f.relative_to(ROOT)))
def test_doors_hold_no_logic(door: Path) -> None:
    """A door is a docstring, its imports and one call, in 15 lines at most."""
    text = door.read_text()
    body = ast.parse(text).body
    assert len(text.splitlines()) <= 15
    assert ast.get_docstring(ast.parse(text))
    rest = [node for node in body[1:] if not isinstance(node, (ast.Import, ast.ImportFrom))]
    assert len(rest) == 1
    assert isinstance(rest[0], (ast.Expr, ast.If))


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SOURCE)))
def test_a_file_is_one_idea_named_in_its_first_line(file: Path) -> None:
    """Every file opens by saying what it is, and none grows beyond about 400 lines."""
    text = file.read_text()
    assert ast.get_docstring(ast.parse(text)), "a first line that says the idea"
    assert len(text.splitlines()) <= 420


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["plan", "configs/one_book.yaml", "--tokens", "130520"],
        ["runs"],
        ["gpus"],
        ["queue", "--help"],
        ["doctor", "--help"],
    ],
    ids=lambda a: a[0],
)
def test_light_commands_never_import_torch(arguments: list[str]) -> None:
    """Help, the closed-form plan, the tables of runs and of GPUs and the queue start without torch."""
    code = (
        "import sys\n"
        "from ganeum.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("config", sorted(ROOT.glob("configs/**/*.yaml")), ids=lambda f: str(f.relative_to(ROOT)))
def test_every_shipped_config_loads_and_plans(config: Path) -> None:
    """`ganeum plan` answers for every config in the repository, whether its data is there or not."""
    command = [sys.executable, "-m", "ganeum", "plan", str(config), "--tokens", "10000000", "--json"]
    if config.name == "base.yaml":
        command.append("max_iters=100")  # the one config that sets no length: it lists every key at its default
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_command_is_documented() -> None:
    """docs/commands.md is what `python -m ganeum.cli.reference` writes: every command with every option."""
    assert reference() == (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")


def test_the_version_is_printed() -> None:
    """`ganeum --version` names it, with exit status 0 and without a command."""
    command = [sys.executable, "-m", "ganeum", "--version"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()[0]) == (0, "ganeum")


def test_readme_layout_is_the_real_one() -> None:
    """Every path drawn in the README exists, and every room and top-level entry is drawn."""
    for readme in ("README.md", "README.ko.md"):
        drawn = layout((ROOT / readme).read_text())
        made_by_running = {"results"}
        for path in drawn - made_by_running:
            assert (ROOT / path).exists(), f"{readme} draws {path}"
        rooms = {f"src/ganeum/{p.name}" for p in SOURCE.iterdir() if p.is_dir() and p.name != "__pycache__"}
        assert rooms <= drawn, f"{readme} lacks {rooms - drawn}"


def layout(readme: str) -> set[str]:
    """Paths in the README's tree: two spaces a level, one entry a line, a trailing / for directories."""
    block = readme.split("```text\n")[-1].split("```")[0]
    paths: set[str] = set()
    parents: list[str] = []
    for line in block.splitlines():
        if not line.strip():
            continue
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        parents = [*parents[:depth], name.strip("/")]
        paths.add("/".join(parents))
    return paths


def test_every_test_file_has_a_name_of_its_own() -> None:
    """pytest takes two test files of one name for the same module and refuses the second."""
    names = [file.name for file in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(set(names)) == sorted(names)


def test_the_project_speaks_of_itself_alone() -> None:
    """No file names a directory above the repository."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    needle = "../" + "shared"
    for name in listed.stdout.split():
        path = ROOT / name
        if path.suffix in {".py", ".md", ".yaml", ".toml", ".sh"} and path.exists():
            assert needle not in path.read_text(), name
