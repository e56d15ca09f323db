"""Make Triton's interpreter prepare the language once instead of at every function call."""

from types import SimpleNamespace

import triton.language as tl
from triton.runtime import interpreter


def keep_language_patched() -> None:
    """Replace the functions of triton.language by interpreted ones; a second call does nothing.

    The interpreter does this at every launch and at every call of a function inside a kernel, which
    is up to half of its time. The replacements do not depend on the kernel.
    """
    if interpreter._patch_lang is _nothing_to_patch:
        return
    interpreter._patch_lang(SimpleNamespace(__globals__={"tl": tl, "core": tl.core}))
    interpreter._patch_lang = _nothing_to_patch


def _nothing_to_patch(function: object) -> interpreter._LangPatchScope:
    return interpreter._LangPatchScope()
