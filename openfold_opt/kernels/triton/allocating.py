"""Compile Triton kernels only up to the allocation of shared memory, in a tenth of the time.

Up to that point the passes are those of Triton 3.6 and 3.7. The later stages (LLVM and ptxas) are
slow for IEEE products of float32 and do not change the allocation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import triton
from triton._C.libtriton import ir, nvidia, passes
from triton.backends.nvidia.compiler import get_ptx_version_from_options

_KEY = "openfold_opt: shared memory only"
_UNUSED = {
    "tmem_size": 0,
    "global_scratch_size": 0,
    "global_scratch_align": 1,
    "profile_scratch_size": 0,
    "profile_scratch_align": 1,
}
"""Entries that Triton expects in the metadata of a compiled kernel."""


@contextmanager
def only_shared_memory() -> Iterator[None]:
    """Within the block, let Triton compile only up to the allocation of shared memory.

    The compiled kernels have `metadata.shared` and separate cache entries. They cannot be
    launched.
    """
    before = triton.knobs.runtime.add_stages_inspection_hook
    triton.knobs.runtime.add_stages_inspection_hook = _replace_stages
    try:
        yield
    finally:
        triton.knobs.runtime.add_stages_inspection_hook = before


def _replace_stages(*arguments: object) -> tuple[str, str] | None:
    """Replace the stages after TTGIR. Without arguments, return a part of the cache key."""
    if not arguments:
        return _KEY, _KEY
    backend, stages, options, _, capability = arguments
    ptx_version = get_ptx_version_from_options(options, backend.target.arch)

    def allocate(module: ir.module, metadata: dict[str, object]) -> str:
        manager = ir.pass_manager(module.context)
        passes.ttgpuir.add_combine_tensor_select_and_if(manager)
        passes.ttgpuir.add_allocate_warp_groups(manager)
        passes.convert.add_scf_to_cf(manager)
        passes.gluon.add_inliner(manager)
        nvidia.passes.ttgpuir.add_allocate_shared_memory_nv(manager, capability, ptx_version)
        manager.run(module, "allocate")
        metadata.update(_UNUSED, shared=module.get_int_attr("ttg.shared"), name="allocated")
        return "allocated"

    stages["llir"] = allocate
    stages["ptx"] = lambda module, metadata: module
    stages["cubin"] = lambda module, metadata: module.encode()
    return None
