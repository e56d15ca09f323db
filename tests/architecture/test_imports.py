"""Which package may import which, read from the source without importing it."""

import ast
import pathlib

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
    "openfold_opt.predict": {
        "openfold_opt.protein",
        "openfold_opt.geometry",
        "openfold_opt.kernels",
        "openfold_opt.parallel",
        "openfold_opt.model",
        "openfold_opt.losses",
        "openfold_opt.loader",
        "openfold_opt.train",
        "data_prep",  # Only inputs.py, see test_only_inputs_imports_data_prep.
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
        "openfold_opt.predict",
        "data_prep",
        "data_prep.synthesize",
    },
}

# The modules of a package that another package may import.
INTERFACES = {
    ("openfold_opt.model", "openfold_opt.kernels"): (
        "openfold_opt.kernels.interface",
        "openfold_opt.kernels.select",
    ),
    ("openfold_opt.losses", "openfold_opt.model"): (
        "openfold_opt.model.batch",
        "openfold_opt.model.outputs",
    ),
}

# third-party module -> packages that may import it
ONLY_IN = {
    "gemmi": ("data_prep", "openfold_opt.predict"),
    "modelcif": ("openfold_opt.predict",),
    "ihm": ("openfold_opt.predict",),
    "openmm": ("openfold_opt.predict",),
    "kalign": ("data_prep",),
    "mpi4py": ("data_prep",),
    "triton": ("openfold_opt.kernels",),
    "cuequivariance_torch": ("openfold_opt.kernels", "benchmark"),
    "mlperf_logging": ("benchmark",),
    "matplotlib": ("benchmark", "openfold_opt.predict"),
    "tensorboard": ("benchmark",),
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


def package_of(module: str) -> str | None:
    """Return the longest package of the table that contains the module, or None."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if ".".join(parts[:length]) in ALLOWED:
            return ".".join(parts[:length])
    return None


def imported_modules(path: pathlib.Path) -> list[tuple[int, str]]:
    """Return (line, full module name) of every import in a file.

    `from package import name` gives package.name.
    """
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
    package = package_of(module_name(path))
    if package is None:
        return []
    wrong = []
    for line, module in imported_modules(path):
        place = f"{path.relative_to(ROOT)}:{line} imports {module}"
        top = module.split(".")[0]
        if top in ONLY_IN and not package.startswith(ONLY_IN[top]):
            wrong.append(f"{place}, which only {', '.join(ONLY_IN[top])} may")
        if top == "torch" and package in WITHOUT_TORCH:
            wrong.append(f"{place}; {package} works without torch")
        other = package_of(module)
        if other is None or other == package:
            continue
        if other not in ALLOWED[package] and not (
            package == "data_prep" and other == "data_prep.synthesize"
        ):
            wrong.append(f"{place}; {package} may not import {other}")
        interfaces = INTERFACES.get((package, other))
        if interfaces and not module.startswith(interfaces):
            wrong.append(f"{place}; of {other}, {package} may only import {', '.join(interfaces)}")
    return wrong


def test_imports_follow_the_table():
    assert [violation for path in source_files() for violation in violations(path)] == []


def files_importing(folder: str, package: str) -> list[str]:
    """Return the names of the files in a folder that import a package or module."""
    return [
        path.name
        for path in sorted((ROOT / folder).glob("*.py"))
        if any(f"{module}.".startswith(f"{package}.") for _, module in imported_modules(path))
    ]


def test_few_model_files_know_about_ranks():
    parallel = files_importing("openfold_opt/model", "openfold_opt.parallel")
    assert len(parallel) <= 8, parallel
    chunks = files_importing("openfold_opt/model", "openfold_opt.parallel.chunks")
    assert chunks == ["axial_schedule.py"]


def test_only_inputs_imports_data_prep():
    assert files_importing("openfold_opt/predict", "data_prep") == ["inputs.py"]


def test_import_table_has_no_cycle():
    assert find_cycle(ALLOWED) is None


def find_cycle(graph) -> list[str] | None:
    """Return the nodes of cycles and the nodes that lead to them; None without a cycle."""
    remaining = {node: set(others) - {node} for node, others in graph.items()}
    while free := [node for node, others in remaining.items() if not others & remaining.keys()]:
        for node in free:
            del remaining[node]
    return sorted(remaining) or None


def import_graph() -> dict[str, set[str]]:
    """Return the product modules that each product module imports, inside functions too."""
    paths = {module_name(path): path for path in source_files()}
    graph = {}
    for module, path in paths.items():
        graph[module] = set()
        for _, imported in imported_modules(path):
            # the last part of an imported name may be an attribute of the module
            known = [name for name in (imported, imported.rpartition(".")[0]) if name in paths]
            graph[module].update(known[:1])
    return graph


def test_files_do_not_import_each_other_in_a_cycle():
    assert find_cycle(import_graph()) is None


def test_a_cycle_is_found():
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]


def test_a_forbidden_import_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    folder = ROOT / "openfold_opt" / "protein"
    bad = "from openfold_opt.model import batch\nimport torch\nimport gemmi\n"
    monkeypatch.setattr(pathlib.Path, "read_text", lambda self, **_: bad)
    wrong = violations(folder / "residue_constants.py")
    assert len(wrong) == 3
