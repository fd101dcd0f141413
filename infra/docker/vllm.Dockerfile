# The worker with vLLM; docker-compose.yml builds it for the profile `vllm`.
#
# The driver comes from the host (NVIDIA Container Toolkit). vLLM's kernels come in its wheel, and CUDA's libraries with torch; it
# compiles others for the GPU that it finds, at the first start, hence the compilers.
FROM nvidia/cuda:13.0.1-devel-ubuntu24.04
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates python3-dev python3-venv g++ \
 && rm -rf /var/lib/apt/lists/* \
 && python3 -m venv /opt/chatserver \
 && groupadd --gid 10001 chatserver \
 && useradd --uid 10001 --gid chatserver --home-dir /cache --no-create-home --shell /usr/sbin/nologin chatserver \
 && install -d -o chatserver -g chatserver /state /state/trained /cache /secrets
COPY requirements.txt /packages/
COPY infra/docker/packages /packages/
RUN /opt/chatserver/bin/pip install --quiet vllm==0.32.0 \
 && /opt/chatserver/bin/pip install --quiet -c /packages/requirements.txt -r /packages/every.txt
ENV PATH=/opt/chatserver/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    CHATSERVER_STATE_DIR=/state HF_HOME=/state/huggingface \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /app
COPY --chmod=755 infra/docker/chatserver /usr/local/bin/chatserver
COPY services services
COPY workers workers
USER 10001:10001
CMD ["chatserver", "worker"]
