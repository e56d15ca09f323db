"""Who may import whom between rooms, read from the source without importing it."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]

# The import table: package -> packages that it may import. Each may import itself.
ALLOWED = {
    "openfold_opt.protein": set(),
    "openfold_opt.geometry": {"openfold_opt.protein"},
    "openfold_opt.kernels": set(),
    "openfold_opt.parallel": set(),
    "openfold_opt.model": {
        "openfold_opt.geometry",
        "openfold_opt.kernels",
        "openfold_opt.parallel",
        "openfold_opt.protein",
    },
    "openfold_opt.losses": {"openfold_opt.geometry", "openfold_opt.protein", "openfold_opt.model"},
    "openfold_opt.loader": {
        "openfold_opt.protein",
        "openfold_opt.parallel",
        "openfold_opt.geometry",
    },
    "openfold_opt.train": {
        "openfold_opt.protein",
        "openfold_opt.geometry",
        "openfold_opt.kernels",
        "openfold_opt.parallel",
        "openfold_opt.model",
        "openfold_opt.losses",
        "openfold_opt.loader",
    },
    "data_prep": {"openfold_opt.protein"},
    "data_prep.synthesize": {"openfold_opt.protein", "openfold_opt.geometry", "data_prep"},
    "benchmark": {
        "openfold_opt.protein",
        "openfold_opt.geometry",
        "openfold_opt.kernels",
        "openfold_opt.parallel",
        "openfold_opt.model",
        "openfold_opt.losses",
        "openfold_opt.loader",
        "openfold_opt.train",
        "data_prep",
        "data_prep.synthesize",
    },
}

# modules of another room that are its whole door
DOORS = {
    ("openfold_opt.model", "openfold_opt.kernels"): (
        "openfold_opt.kernels.interface",
        "openfold_opt.kernels.select",
    ),
    ("openfold_opt.losses", "openfold_opt.model"): (
        "openfold_opt.model.batch",
        "openfold_opt.model.outputs",
    ),
}

# third-party module -> rooms that may import it
ONLY_IN = {
    "gemmi": ("data_prep",),
    "kalign": ("data_prep",),
    "mpi4py": ("data_prep",),
    "triton": ("openfold_opt.kernels",),
    "mlperf_logging": ("benchmark",),
    "matplotlib": ("benchmark",),
}
WITHOUT_TORCH = ("openfold_opt.protein", "data_prep")


def source_files():
    return [
        path
        for top in ("openfold_opt", "data_prep", "benchmark")
        for path in sorted((ROOT / top).rglob("*.py"))
    ]


def module_name(path: pathlib.Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str | None:
    """The longest room name that the module lies in; None for third-party modules and the bare package."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if ".".join(parts[:length]) in ALLOWED:
            return ".".join(parts[:length])
    return None


def imported_modules(path: pathlib.Path) -> list[tuple[int, str]]:
    """(line, full module name) of every import in a file; `from package import name` gives package.name."""
    found = []
    package = (
        module_name(path).split(".")
        if path.name == "__init__.py"
        else module_name(path).split(".")[:-1]
    )
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            found += [(node.lineno, f"{prefix}.{alias.name}") for alias in node.names]
    return found


def violations(path: pathlib.Path) -> list[str]:
    room = room_of(module_name(path))
    if room is None:
        return []
    wrong = []
    for line, module in imported_modules(path):
        place = f"{path.relative_to(ROOT)}:{line} imports {module}"
        top = module.split(".")[0]
        if top in ONLY_IN and not room.startswith(ONLY_IN[top]):
            wrong.append(f"{place}, which only {', '.join(ONLY_IN[top])} may")
        if top == "torch" and room in WITHOUT_TORCH:
            wrong.append(f"{place}; {room} works without torch")
        other = room_of(module)
        if other is None or other == room:
            continue
        if other not in ALLOWED[room] and not (
            room == "data_prep" and other == "data_prep.synthesize"
        ):
            wrong.append(f"{place}; {room} may not import {other}")
        doors = DOORS.get((room, other))
        if doors and not module.startswith(doors):
            wrong.append(f"{place}; of {other}, {room} may only import {', '.join(doors)}")
    return wrong


@pytest.mark.parametrize("path", source_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_table(path):
    assert violations(path) == []


def test_table_has_no_circle():
    rooms = {room: set(others) for room, others in ALLOWED.items()}
    while rooms:
        free = [room for room, others in rooms.items() if not others & rooms.keys()]
        assert free, f"circle among {sorted(rooms)}"
        for room in free:
            del rooms[room]


def test_a_forbidden_import_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    folder = ROOT / "openfold_opt" / "protein"
    bad = "from openfold_opt.model import batch\nimport torch\nimport gemmi\n"
    monkeypatch.setattr(pathlib.Path, "read_text", lambda self, **_: bad)
    wrong = violations(folder / "residue_constants.py")
    assert len(wrong) == 3
