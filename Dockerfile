# syntax=docker/dockerfile:1
# For a CPU:    docker build -t dml-bench .
# For a GPU:    docker build -t dml-bench --build-arg DEVICE=gpu .
# Then, with photos in ./photos, one folder for each class:
#   docker run --rm -it -v "$PWD:/data" dml-bench decide photos --minutes 30
FROM python:3.12-slim-bookworm AS build
ARG DEVICE=cpu
ARG EXTRAS=lite,fonts,serve,onnx
# TORCH_BACKEND=cpu takes PyTorch from its own index, in builds that need no CUDA libraries.
ARG TORCH_BACKEND=
ENV UV_COMPILE_BYTECODE=1
RUN pip install --no-cache-dir uv==0.13.9
WORKDIR /src
COPY . .
RUN uv venv --python "$(command -v python)" /opt/dml-bench
# requirements.txt holds the exact versions; without a GPU, packages that only a GPU uses stay out.
RUN --mount=type=cache,target=/root/.cache/uv \
    if [ "$DEVICE" = gpu ]; then : > requirements-gpu-only.txt; fi \
 && uv pip install --python /opt/dml-bench/bin/python --constraint requirements.txt \
    --excludes requirements-gpu-only.txt ${TORCH_BACKEND:+--torch-backend "$TORCH_BACKEND"} \
    ".[$EXTRAS]"
# The program starts and finds its experiments, and PyTorch its libraries.
RUN /opt/dml-bench/bin/dml-bench list experiments --json > /dev/null \
 && /opt/dml-bench/bin/python -c "import torch"

FROM python:3.12-slim-bookworm
COPY --from=build /opt/dml-bench /opt/dml-bench
# Runs, caches and consent to plug-ins stay in the folder that is mounted at /data.
ENV PATH=/opt/dml-bench/bin:$PATH HOME=/data WANDB_MODE=offline
WORKDIR /data
USER 1000:1000
ENTRYPOINT ["dml-bench"]
CMD ["--help"]
