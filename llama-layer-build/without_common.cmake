# Included into llama.cpp's own project: its "common" library (argument parsing, sampling, downloads for its programs)
# does not compile in a unity build, and the Python bindings use none of it. Set here because the bindings' own
# CMakeLists.txt switches it on again in the cache.
set(LLAMA_BUILD_COMMON OFF)
