"""Complete configurations, one file each with build() -> RunConfig.

Presets of this package are given by name, and files anywhere else by their path. A preset may also
have fit_to_data(config, index) -> RunConfig, which sets sizes of samples from the data set.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import pkgutil
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from benchmark.command_line import BenchmarkError

if TYPE_CHECKING:
    from openfold_opt.train.config import RunConfig

SUFFIX = ".py"


def preset_names() -> list[str]:
    """Return the names of all presets of this package, sorted.

    A file whose name starts with an underscore contains parts of presets and is not a preset.
    """
    names = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in names if not name.startswith("_"))


def is_path(preset: str) -> bool:
    """Return whether a preset is given by the path of a file, which ends with .py."""
    return preset.endswith(SUFFIX)


def preset_label(preset: str) -> str:
    """Return the name of a preset, or the absolute path of a file outside this package."""
    if not is_path(preset):
        return preset
    path = Path(preset).resolve()
    is_ours = path.parent == Path(__path__[0]).resolve()
    return path.stem if is_ours and path.stem in preset_names() else str(path)


def build_preset(name: str) -> RunConfig:
    """Return the configuration of a preset, by its name or by the path of its file.

    Raises BenchmarkError if there is no such preset, if its file cannot be run, or if it does not
    state its global batch.
    """
    module = _preset_module(name)
    build = getattr(module, "build", None)
    if not callable(build):
        raise BenchmarkError(
            f"preset {name} has no function build(); expected build() -> RunConfig"
        )
    config = _call(name, build)
    # Imported here, so that listing presets does not load torch.
    from openfold_opt.train.config import RunConfig

    if not isinstance(config, RunConfig):
        found = type(config).__name__
        raise BenchmarkError(f"preset {name}: build() returned a {found}, expected a RunConfig")
    if config.global_batch_size is None:
        raise BenchmarkError(
            f"preset {name} does not state its global batch; set global_batch_size, the samples of "
            "an optimizer step over all ranks"
        )
    return config


def fit_preset(name: str, config: RunConfig, data_dir: Path) -> RunConfig:
    """Return the configuration with the sizes of samples that the preset takes from the data set.

    Presets without fit_to_data return it unchanged, and their data set is not opened. Raises
    BenchmarkError if the data set cannot be used.
    """
    if not fits_to_data(name):
        return config
    from openfold_opt.protein.index import ShardIndex

    try:
        index = ShardIndex.load(data_dir)
    except ValueError as error:
        raise BenchmarkError(str(error)) from error
    return _call(name, _preset_module(name).fit_to_data, config, index)


def fits_to_data(name: str) -> bool:
    """Return whether a preset takes sizes of samples from the data set."""
    is_known = is_path(name) or name in preset_names()
    return is_known and hasattr(_preset_module(name), "fit_to_data")


def _preset_module(name: str) -> ModuleType:
    if is_path(name):
        label = preset_label(name)
        return _module_of_file(Path(label)) if is_path(label) else _preset_module(label)
    if name not in preset_names():
        raise BenchmarkError(
            f"unknown preset {name!r}; there are: {', '.join(preset_names())}; a file of your own "
            "is given by its path, which ends with .py"
        )
    return importlib.import_module(f"{__name__}.{name}")


def _module_of_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise BenchmarkError(f"preset {path} is not a file; correct --preset")
    # The module name depends on the path, as two files may have the same name.
    module_name = f"preset_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    module = importlib.util.module_from_spec(spec)
    # A dataclass in the file looks up its module there.
    sys.modules[module_name] = module
    try:
        _call(str(path), spec.loader.exec_module, module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


def _call(name: str, function, *arguments):
    """Call a function of a preset, and raise its exceptions as BenchmarkError."""
    try:
        return function(*arguments)
    except BenchmarkError:
        raise
    except ValueError as error:
        raise BenchmarkError(f"preset {name}: {error}") from error
    except Exception as error:  # Code of a user may raise any exception.
        raise BenchmarkError(f"preset {name}: {type(error).__name__}: {error}") from error
