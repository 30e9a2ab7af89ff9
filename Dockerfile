# Image for NVIDIA GPUs (Hopper and newer).
#
# | part               | version              | why this one                                                      |
# |--------------------|----------------------|-------------------------------------------------------------------|
# | base image         | CUDA 13.0.2 + cuDNN, | the CUDA release that the torch wheel is built for; devel has nvcc |
# |                    | Ubuntu 24.04         | for the two packages below, and Python 3.12                       |
# | torch              | 2.11.0 (cu130 wheel) | lowest release that moss-train takes                              |
# | megatron-core      | 0.16.1               | newest that Python 3.11 and 3.12 share                            |
# | Transformer Engine | 2.20.2               | its torch part compiles on installation (about 10 minutes)        |
# | flash-attn         | 2.8.3.post2          | compiles on installation; MAX_JOBS bounds its memory              |
#
# The torch line of Transformer Engine and flash-attn compile against the installed torch: change torch and they have to
# be built again. Build:  docker build -t moss-train .
# Run:    docker run --gpus all --ipc=host --ulimit memlock=-1 -v $PWD:/workspace moss-train moss train stage=pt1 ...
FROM nvidia/cuda:13.0.2-cudnn-devel-ubuntu24.04

ARG TORCH=2.11.0
ARG MEGATRON_CORE=0.16.1
ARG TRANSFORMER_ENGINE=2.20.2
ARG FLASH_ATTN=2.8.3.post2
ARG MAX_JOBS=8

RUN apt-get update \
    && apt-get install -y --no-install-recommends python3.12 python3.12-dev python3.12-venv git ninja-build cmake \
    && rm -rf /var/lib/apt/lists/* \
    && python3.12 -m venv /opt/moss
ENV PATH=/opt/moss/bin:$PATH \
    CUDA_HOME=/usr/local/cuda \
    CUDA_DEVICE_MAX_CONNECTIONS=1 \
    OMP_NUM_THREADS=1 \
    MAX_JOBS=${MAX_JOBS}

RUN pip install --no-cache-dir torch==${TORCH} setuptools wheel pybind11 packaging ninja
RUN NVTE_FRAMEWORK=pytorch pip install --no-cache-dir --no-build-isolation "transformer-engine[pytorch,core_cu13]==${TRANSFORMER_ENGINE}"
RUN pip install --no-cache-dir --no-build-isolation flash-attn==${FLASH_ATTN}

WORKDIR /opt/moss-train
COPY pyproject.toml README.md LICENSE ./
COPY conf conf
COPY launch launch
COPY model model
COPY data_pipeline data_pipeline
COPY inference inference
COPY moss_train moss_train
RUN pip install --no-cache-dir "megatron-core==${MEGATRON_CORE}" ".[demo]" && pip check

WORKDIR /workspace
CMD ["moss", "--help"]
