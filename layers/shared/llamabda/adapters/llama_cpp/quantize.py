"""Other number formats for a model file."""

from __future__ import annotations

import ctypes
import os
import tempfile
from pathlib import Path

from llamabda.adapters.llama_cpp.library import last_error, library
from llamabda.cpu import available_cpus
from llamabda.errors import ModelError

# Those with fast kernels on every processor we build for; their names are llama.cpp's.
KINDS = ("Q4_0", "Q8_0", "Q4_K_M")


def requantize(source: Path, target: Path, kind: str) -> None:
    """Writes `source` in another number format to `target`, whole or not at all. ModelError when it cannot be done."""
    if kind not in KINDS:
        raise ModelError(f"{kind!r} is no number format we make: use one of {', '.join(KINDS)}")
    if not source.is_file():
        raise ModelError(f"there is no model file at {source}")
    llama = library()
    parameters = llama.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama, f"LLAMA_FTYPE_MOSTLY_{kind}")
    parameters.allow_requantize = True
    parameters.nthread = available_cpus()
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    os.close(handle)
    partial = Path(name)
    try:
        if llama.llama_model_quantize(os.fsencode(source), os.fsencode(partial), ctypes.byref(parameters)) != 0:
            raise ModelError(f"{source} cannot be converted to {kind}: {last_error()}")
        partial.chmod(0o644)  # a temporary file is made for its owner alone
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
