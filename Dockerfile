# The functions of the bundle: `docker build --target auth|ingest|ask .`, or all by `sam build`.
# Stages are in the order in which an older builder, which runs all that come before a target, loses least.
# The images run as nobody in particular. ONBUILD: `sam local` makes images of its own from them, in which it installs the
# emulator of Lambda's runtime, and that takes root.
ARG BASE_IMAGE=python:3.13-slim-trixie

# -- the layer: this project's own code, installed once and copied into each image
FROM ${BASE_IMAGE} AS layer
COPY locks/setuptools.txt /locks/
RUN pip install --quiet --no-cache-dir --break-system-packages --require-hashes --no-deps -r /locks/setuptools.txt
WORKDIR /project
COPY pyproject.toml LICENSE README.md ./
COPY layers layers
COPY functions functions
RUN pip install --quiet --no-cache-dir --no-index --no-deps --no-build-isolation --target /opt/llamabda .

# -- what runs while images are made, and not in them
FROM ${BASE_IMAGE} AS tools
COPY locks/models.txt /build/
RUN pip install --quiet --no-cache-dir --require-hashes --no-deps --only-binary :all: --target /opt/packages \
      -r /build/models.txt
COPY --from=layer /opt/llamabda /opt/llamabda
ENV PYTHONPATH=/opt/llamabda:/opt/packages
RUN python -m llamabda_functions.local.openapi > /opt/openapi.json

# -- auth
FROM ${BASE_IMAGE} AS auth-packages
COPY locks/auth.txt scripts/image/slim.py /build/
RUN pip install --quiet --no-cache-dir --require-hashes --no-deps --only-binary :all: --target /opt/packages \
      -r /build/auth.txt \
    && python /build/slim.py /opt/packages

FROM ${BASE_IMAGE} AS auth
COPY --from=auth-packages /opt/packages /opt/packages
COPY --from=layer /opt/llamabda /opt/llamabda
COPY --from=tools /opt/openapi.json /opt/llamabda/llamabda_functions/auth/openapi.json
ENV PYTHONPATH=/opt/llamabda:/opt/packages PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 LLAMABDA_HOME=/tmp/llamabda
WORKDIR /opt/llamabda
USER 10001:10001
ONBUILD USER root
ENTRYPOINT ["python", "-m", "awslambdaric"]
CMD ["llamabda_functions.auth.entry.handler"]

# -- what ingest and ask share: the embedding model, prepared, or as it was published with EMBEDDER=sentence_transformers
FROM tools AS embedding-model
COPY scripts/image/embedder.py /build/
ARG EMBED_MODEL_NAME=sentence-transformers/all-MiniLM-L6-v2
ARG EMBEDDER=onnx
# while the embedding model changes, that of what is searched until then
ARG FORMER_EMBED_MODEL_NAME=
RUN LLAMABDA_CACHE=/opt/cache python /build/embedder.py model "${EMBEDDER}" "${EMBED_MODEL_NAME}" ${FORMER_EMBED_MODEL_NAME}

# nothing for onnx; for sentence_transformers that library, and torch: TORCH_REQUIREMENT from TORCH_INDEX_URL
FROM ${BASE_IMAGE} AS embedder-packages
COPY locks/sentence-transformers.txt scripts/image/embedder.py /build/
ARG EMBEDDER=onnx
ARG TORCH_REQUIREMENT=torch
ARG TORCH_INDEX_URL=
RUN python /build/embedder.py packages "${EMBEDDER}" /opt/embedder --lock /build/sentence-transformers.txt \
      --torch "${TORCH_REQUIREMENT}" --torch-index "${TORCH_INDEX_URL}"

# -- ingest
FROM ${BASE_IMAGE} AS ingest-packages
COPY locks/ingest.txt scripts/image/slim.py /build/
RUN pip install --quiet --no-cache-dir --require-hashes --no-deps --only-binary :all: --target /opt/packages \
      -r /build/ingest.txt \
    && python /build/slim.py /opt/packages

FROM ${BASE_IMAGE} AS ingest
COPY --from=ingest-packages /opt/packages /opt/packages
COPY --from=embedder-packages /opt/embedder /opt/embedder
COPY --from=embedding-model /opt/cache/models /opt/cache/models
COPY --from=layer /opt/llamabda /opt/llamabda
ARG EMBEDDER=onnx
ENV PYTHONPATH=/opt/llamabda:/opt/packages:/opt/embedder PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    LLAMABDA_HOME=/tmp/llamabda EMBED_BACKEND=${EMBEDDER} \
    LLAMABDA_CACHE=/opt/cache
WORKDIR /opt/llamabda
USER 10001:10001
ONBUILD USER root
ENTRYPOINT ["python", "-m", "awslambdaric"]
CMD ["llamabda_functions.ingest.entry.handler"]

# -- ask, which needs llama.cpp and a language model: the slowest to build comes last
FROM ${BASE_IMAGE} AS llama
RUN apt-get update -qq && apt-get install -qq --no-install-recommends g++ python3-venv >/dev/null
COPY locks/llama-build.txt locks/llama-cpp.txt /build/locks/
COPY llama-layer-build/build_wheel.py llama-layer-build/without_common.cmake /build/llama-layer-build/
# A wheel that was built for this checkout lies in llama-layer-build/wheels and is taken; else it is built here. The script
# is named again since there may be no such folder, and something has to be copied.
COPY llama-layer-build/build_wheel.py llama-layer-build/wheels* /build/llama-layer-build/wheels/
RUN python /build/llama-layer-build/build_wheel.py --cache /build/llama-layer-build --out /opt/wheels

FROM ${BASE_IMAGE} AS ask-packages
COPY locks/ask.txt scripts/image/slim.py /build/
COPY --from=llama /opt/wheels /opt/wheels
RUN pip install --quiet --no-cache-dir --require-hashes --no-deps --only-binary :all: --target /opt/packages \
      -r /build/ask.txt \
    && pip install --quiet --no-cache-dir --no-index --no-deps --target /opt/packages /opt/wheels/*.whl \
    && python /build/slim.py /opt/packages

FROM ${BASE_IMAGE} AS language-model
RUN apt-get update -qq && apt-get install -qq --no-install-recommends libgomp1 >/dev/null
COPY --from=ask-packages /opt/packages /opt/packages
COPY --from=layer /opt/llamabda /opt/llamabda
COPY llama-layer-build /build/llama-layer-build
# a name of the catalogue, an address with its MODEL_SHA256, or a path such as llama-layer-build/models/mine.gguf
ARG MODEL=smollm2-135m-instruct
ARG MODEL_SHA256=
ARG MODEL_REQUANTIZE=
WORKDIR /build
RUN PYTHONPATH=/opt/llamabda:/opt/packages python llama-layer-build/get_model.py "${MODEL}" \
      --sha256 "${MODEL_SHA256}" --requantize "${MODEL_REQUANTIZE}" --out /opt/model/model.gguf

FROM ${BASE_IMAGE} AS ask
RUN apt-get update -qq && apt-get install -qq --no-install-recommends libgomp1 >/dev/null \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log
COPY --from=ask-packages /opt/packages /opt/packages
COPY --from=embedder-packages /opt/embedder /opt/embedder
COPY --from=embedding-model /opt/cache/models /opt/cache/models
COPY --from=language-model /opt/model /opt/model
COPY --from=layer /opt/llamabda /opt/llamabda
ARG EMBEDDER=onnx
ENV PYTHONPATH=/opt/llamabda:/opt/packages:/opt/embedder PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    LLAMABDA_HOME=/tmp/llamabda EMBED_BACKEND=${EMBEDDER} \
    LLAMABDA_CACHE=/opt/cache MODEL_PATH=/opt/model/model.gguf
WORKDIR /opt/llamabda
USER 10001:10001
ONBUILD USER root
ENTRYPOINT ["python", "-m", "awslambdaric"]
CMD ["llamabda_functions.ask.entry.handler"]
