"""Generation with llama.cpp, in this process."""

from llamabda.adapters.llama_cpp.generator import LlamaCppGenerator
from llamabda.adapters.llama_cpp.quantize import requantize

__all__ = ["LlamaCppGenerator", "requantize"]
