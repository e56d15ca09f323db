"""Sizes, forbidden words and forbidden state, read from the source."""

import ast
import functools
import io
import pathlib
import re
import tokenize

import pytest

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
EVERYTHING = PRODUCT + python_files("tests")


def name_of(path):
    return str(path.relative_to(ROOT))


@functools.cache
def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def functions_of(tree):
    return [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def is_constant_table(tree) -> bool:
    """A file without functions and classes is a table of data and may be long."""
    return not any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in ast.walk(tree))


@pytest.mark.parametrize("path", EVERYTHING, ids=name_of)
def test_file_is_not_too_long(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_FILE_LINES or is_constant_table(parsed(path)), (
        f"{lines} lines, at most {MAX_FILE_LINES}"
    )


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_functions_are_not_too_long(path):
    for function in functions_of(parsed(path)):
        is_kernel = any("jit" in ast.unparse(decorator) for decorator in function.decorator_list)
        limit = MAX_KERNEL_LINES if is_kernel else MAX_FUNCTION_LINES
        length = function.end_lineno - function.lineno + 1
        assert length <= limit, (
            f"{function.name} (line {function.lineno}) has {length} lines, at most {limit}"
        )


def is_kernel_or_operator(function) -> bool:
    """Return whether all arguments of a function are passed by position.

    This holds for Triton kernels, for operators and for the forward of a Function (its first
    argument is ctx).
    """
    decorators = " ".join(ast.unparse(decorator) for decorator in function.decorator_list)
    is_forward = bool(function.args.args) and function.args.args[0].arg == "ctx"
    return is_forward or any(name in decorators for name in ("jit", "fused_op", "custom_op"))


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_functions_take_few_positional_arguments(path):
    for function in functions_of(parsed(path)):
        if is_kernel_or_operator(function):
            continue
        arguments = [
            a.arg
            for a in function.args.posonlyargs + function.args.args
            if a.arg not in ("self", "cls")
        ]
        assert len(arguments) <= MAX_ARGUMENTS, (
            f"{function.name} (line {function.lineno}) takes {len(arguments)}"
        )


@pytest.mark.parametrize(
    "path", python_files("openfold_opt/model", "openfold_opt/parallel"), ids=name_of
)
def test_model_and_parallel_state_their_types(path):
    names = {node.id for node in ast.walk(parsed(path)) if isinstance(node, ast.Name)}
    assert "Any" not in names


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_no_global_state(path):
    for node in ast.walk(parsed(path)):
        assert not isinstance(node, ast.Global), f"line {node.lineno}: global"
        if path.name in ENVIRONMENT_FILES:
            continue
        is_environ = isinstance(node, ast.Attribute) and node.attr in (
            "environ",
            "getenv",
            "putenv",
        )
        assert not (is_environ and ast.unparse(node.value) == "os"), (
            f"line {node.lineno}: environment outside {ENVIRONMENT_FILES}"
        )


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_no_exception_is_swallowed(path):
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"line {node.lineno}: bare except"
            only_pass = len(node.body) == 1 and isinstance(node.body[0], ast.Pass)
            assert not only_pass, f"line {node.lineno}: exception swallowed by pass"


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_no_promises_and_no_dead_code(path):
    text = path.read_text(encoding="utf-8")
    for word in FORBIDDEN_WORDS:
        assert word not in text, word
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            assert not looks_like_code(token.string.lstrip("# ")), (
                f"line {token.start[0]}: commented-out code"
            )


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


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_modules_classes_and_public_functions_are_described(path):
    tree = parsed(path)
    if not tree.body:
        return
    assert ast.get_docstring(tree), "module without docstring"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            described = ast.get_docstring(node) or node.name in COMMAND_FUNCTIONS
            assert described, f"{node.name} (line {node.lineno}) without docstring"


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_configs_are_frozen_and_keyword_only(path):
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ClassDef) and node.name.endswith("Config"):
            decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
            text = " ".join(decorators)
            assert "frozen=True" in text and "kw_only=True" in text, f"{node.name}: {decorators}"


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


# Functions of openfold_opt whose signature may have Any: torch's state dicts.
STATE_DICT_FUNCTIONS = {
    "adam_state_dict",
    "load_state_dict",
    "mlcommons_form",
}


@pytest.mark.parametrize("path", python_files("openfold_opt"), ids=name_of)
def test_signatures_have_types(path):
    """`Any` is only for the context of an autograd function and for state dicts."""
    for function in functions_of(parsed(path)):
        arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        arguments += [x for x in (function.args.vararg, function.args.kwarg) if x is not None]
        annotations = [x.annotation for x in arguments if x.arg != "ctx"] + [function.returns]
        text = " ".join(ast.unparse(x) for x in annotations if x is not None)
        has_any = re.search(r"\bAny\b", text) is not None
        assert not has_any or function.name in STATE_DICT_FUNCTIONS, (
            f"{function.name} (line {function.lineno}): {text}"
        )
