"""Sizes, forbidden words and forbidden state, read from the source."""

import ast
import io
import pathlib
import re
import tokenize
from collections.abc import Iterator

import pytest

from tests.conftest import SLOW_FILES

ROOT = pathlib.Path(__file__).resolve().parents[2]
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_KERNEL_LINES = 120
MAX_ARGUMENTS = 5
# The two functions of every command module. The __main__.py files describe them.
COMMAND_FUNCTIONS = ("add_parser", "run")
# The files that may read environment variables: those of a launcher and of the submitter.
ENVIRONMENT_FILES = ("launch.py", "submitter.py")
FORBIDDEN_WORDS = ("TODO", "FIXME", "XXX", "NotImplementedError")


def python_files(*tops: str):
    return [path for top in tops for path in sorted((ROOT / top).rglob("*.py"))]


PRODUCT = python_files("openfold_opt", "data_prep", "benchmark")
TYPED = ("openfold_opt/model/", "openfold_opt/parallel/")
"""Packages without any `Any`."""
# Functions of openfold_opt whose signature may have Any: torch's state dicts.
STATE_DICT_FUNCTIONS = {
    "adam_state_dict",
    "load_state_dict",
    "mlcommons_form",
}


def name_of(path):
    return str(path.relative_to(ROOT))


def functions_of(tree):
    return [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def is_constant_table(tree) -> bool:
    """A file without functions and classes is a table of data and may be long."""
    return not any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in ast.walk(tree))


def long_files(text: str) -> Iterator[str]:
    lines = len(text.splitlines())
    if lines > MAX_FILE_LINES and not is_constant_table(ast.parse(text)):
        yield f"{lines} lines, at most {MAX_FILE_LINES}"


def long_functions(tree) -> Iterator[str]:
    for function in functions_of(tree):
        is_kernel = any("jit" in ast.unparse(decorator) for decorator in function.decorator_list)
        limit = MAX_KERNEL_LINES if is_kernel else MAX_FUNCTION_LINES
        length = function.end_lineno - function.lineno + 1
        if length > limit:
            yield f"{function.name} (line {function.lineno}) has {length} lines, at most {limit}"


def is_kernel_or_operator(function) -> bool:
    """Return whether all arguments of a function are passed by position.

    This holds for Triton kernels, for operators and for the forward of a Function (its first
    argument is ctx).
    """
    decorators = " ".join(ast.unparse(decorator) for decorator in function.decorator_list)
    is_forward = bool(function.args.args) and function.args.args[0].arg == "ctx"
    return is_forward or any(name in decorators for name in ("jit", "fused_op", "custom_op"))


def many_positional_arguments(tree) -> Iterator[str]:
    for function in functions_of(tree):
        if is_kernel_or_operator(function):
            continue
        arguments = [
            a.arg
            for a in function.args.posonlyargs + function.args.args
            if a.arg not in ("self", "cls")
        ]
        if len(arguments) > MAX_ARGUMENTS:
            yield f"{function.name} (line {function.lineno}) takes {len(arguments)} arguments"


def any_type(tree) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == "Any":
            yield f"line {node.lineno}: Any"


def global_state(tree, *, may_read_environment: bool) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            yield f"line {node.lineno}: global"
        is_environ = isinstance(node, ast.Attribute) and node.attr in (
            "environ",
            "getenv",
            "putenv",
        )
        if is_environ and not may_read_environment and ast.unparse(node.value) == "os":
            yield f"line {node.lineno}: environment outside {ENVIRONMENT_FILES}"


def swallowed_exceptions(tree) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            if node.type is None:
                yield f"line {node.lineno}: bare except"
            if len(node.body) == 1 and isinstance(node.body[0], ast.Pass):
                yield f"line {node.lineno}: exception swallowed by pass"


def promises_and_dead_code(text: str) -> Iterator[str]:
    yield from (word for word in FORBIDDEN_WORDS if word in text)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and looks_like_code(token.string.lstrip("# ")):
            yield f"line {token.start[0]}: commented-out code"


def looks_like_code(comment: str) -> bool:
    """A statement that does something; words and names alone parse too, so they do not count."""
    try:
        tree = ast.parse(comment)
    except SyntaxError:
        return False
    acting = (
        ast.Assign,
        ast.AugAssign,
        ast.Return,
        ast.Import,
        ast.ImportFrom,
        ast.Raise,
        ast.Assert,
    )
    is_call = [
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) for node in tree.body
    ]
    return any(isinstance(node, acting) for node in tree.body) or any(is_call)


def missing_docstrings(tree) -> Iterator[str]:
    if tree.body and not ast.get_docstring(tree):
        yield "module without docstring"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            if not ast.get_docstring(node) and node.name not in COMMAND_FUNCTIONS:
                yield f"{node.name} (line {node.lineno}) without docstring"


def mutable_configs(tree) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name.endswith("Config"):
            decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
            text = " ".join(decorators)
            if "frozen=True" not in text or "kw_only=True" not in text:
                yield f"{node.name}: {decorators}, expected frozen=True and kw_only=True"


def signatures_with_any(tree) -> Iterator[str]:
    """`Any` is only for the context of an autograd function and for state dicts."""
    for function in functions_of(tree):
        arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        arguments += [x for x in (function.args.vararg, function.args.kwarg) if x is not None]
        annotations = [x.annotation for x in arguments if x.arg != "ctx"] + [function.returns]
        text = " ".join(ast.unparse(x) for x in annotations if x is not None)
        has_any = re.search(r"\bAny\b", text) is not None
        if has_any and function.name not in STATE_DICT_FUNCTIONS:
            yield f"{function.name} (line {function.lineno}): {text}"


def violations(text: str, name: str) -> list[str]:
    """Return all violations in the text of a product file with this name."""
    # The rules share the tree: parsing takes most of the time.
    tree = ast.parse(text)
    may_read_environment = pathlib.PurePath(name).name in ENVIRONMENT_FILES
    found = [
        *long_files(text),
        *long_functions(tree),
        *many_positional_arguments(tree),
        *global_state(tree, may_read_environment=may_read_environment),
        *swallowed_exceptions(tree),
        *promises_and_dead_code(text),
        *missing_docstrings(tree),
        *mutable_configs(tree),
    ]
    if name.startswith("openfold_opt"):
        found += signatures_with_any(tree)
    if name.startswith(TYPED):
        found += any_type(tree)
    return found


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_product_file_follows_the_rules(path):
    assert violations(path.read_text(encoding="utf-8"), name_of(path)) == []


def test_files_of_tests_are_not_too_long():
    found = {
        name_of(path): list(long_files(path.read_text(encoding="utf-8")))
        for path in python_files("tests")
    }
    assert not {name: messages for name, messages in found.items() if messages}


BROKEN = {
    "lines, at most 400": "def _f():\n    ...\n" * 201,
    "_f (line 2) has 62 lines": "def _f():\n" + "    x\n" * 61,
    "takes 6 arguments": "def _f(a, b, c, d, e, f): ...\n",
    "line 2: Any": "_x: Any\n",
    "line 3: global": "def _f():\n    global x\n",
    "line 3: environment outside": "import os\n_x = os.environ\n",
    "line 4: bare except": "try:\n    _f()\nexcept:\n    _g()\n",
    "line 4: exception swallowed": "try:\n    _f()\nexcept ValueError:\n    pass\n",
    "FIXME": "_x = 1  # FIXME\n",
    "line 2: commented-out code": "# x = 1\n",
    "f (line 2) without docstring": "def f(): ...\n",
    "expected frozen=True and kw_only": "@dataclass(frozen=True)\nclass _Config: ...\n",
    "_f (line 2): dict[str, Any]": "def _f(x: dict[str, Any]): ...\n",
}
"""The message of each rule -> code that violates it."""


@pytest.mark.parametrize("message", BROKEN)
def test_violation_is_found(message):
    found = violations('"""A module."""\n' + BROKEN[message], "openfold_opt/model/x.py")
    assert any(message in violation for violation in found), found


def test_launcher_may_read_the_environment():
    text = '"""A module."""\nimport os\n_x = os.environ\n'
    assert violations(text, "openfold_opt/parallel/launch.py") == []
    assert violations(text, "openfold_opt/parallel/relaunch.py")


# Folders of tests that are not packages of the product.
OTHER_TEST_FOLDERS = ("architecture", "docker", "slurm", "support", "tools")


def test_tests_mirror_the_packages():
    for path in (ROOT / "tests").rglob("test_*.py"):
        folder = path.parent.relative_to(ROOT / "tests")
        packages = (ROOT / folder, ROOT / "openfold_opt" / folder)
        is_mirror = any((package / "__init__.py").is_file() for package in packages)
        assert is_mirror or str(folder) in OTHER_TEST_FOLDERS, f"{path}: no such package"


def test_helpers_of_tests_are_in_support():
    assert not list((ROOT / "tests").rglob("__init__.py"))
    for path in (ROOT / "tests").rglob("*.py"):
        is_test = path.name.startswith("test_") or path.name == "conftest.py"
        is_program = 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
        assert is_test or is_program or path.parent.name == "support", path


def test_slow_files_of_the_order_exist():
    missing = [name for name in SLOW_FILES if not (ROOT / "tests" / name).is_file()]
    assert not missing
