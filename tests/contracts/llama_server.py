"""llama.cpp's own server, in a process of its own until its standard input ends: `llama_server.py MODEL N_CTX [KEY]`.

The first line on standard output is its address.
"""

import sys

import xllamacpp


def main(path: str, context: str, *keys: str) -> None:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = path
    parameters.n_ctx = int(context)
    parameters.n_parallel = 1
    parameters.n_gpu_layers = 0
    parameters.cpuparams.n_threads = 1
    parameters.warmup = False
    parameters.port = 0
    parameters.api_keys = list(keys)
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)
    sys.stdin.read()


main(*sys.argv[1:])
