"""Private, GPU-free question answering over your own documents, with citations that can be checked."""

__version__ = "0.1.0"
