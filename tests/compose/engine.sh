#!/usr/bin/env bash
# A container engine for tests/compose on a machine that has none: Debian's, started by hand, with no registry needed.
#
#   engine.sh install         Debian's engine and Compose; base images are stand-ins made of Debian's packages
#   engine.sh build SERVICE…  the project's images, with the host's network, so that pip, npm and apt reach their indexes
#   engine.sh start | stop    the engine in a network namespace of its own, which has no way out
#   engine.sh inside COMMAND… runs beside the containers: there, published ports are on 127.0.0.1
#   engine.sh compose ARG…    docker compose on the project's unmodified file
#   engine.sh docker ARG…
#
# Everything lies in $STATE, images included, so that a second run builds only what has changed. A stand-in has the layout of
# the image that it stands for, not its bytes: what passes here says nothing about the real base's versions. The host's
# configuration of apt, pip and npm goes into the stand-ins as files, so these images must not leave the machine.
set -euo pipefail

STATE=${STATE:-/var/tmp/chatserver-compose}
PROJECT=$(cd "$(dirname "$0")/../.." && pwd)
export DOCKER_HOST=unix://$STATE/docker.sock DOCKER_CONFIG=$STATE/config DOCKER_BUILDKIT=1 COMPOSE_PROJECT_NAME=chatserver-test
export DEBIAN_FRONTEND=noninteractive
COMPOSE=$DOCKER_CONFIG/cli-plugins/docker-compose
HOST_FILES=(/etc/apt/sources.list.d/debian.sources /etc/pip.conf /etc/xdg/pip /etc/npmrc "$HOME/.npmrc" /etc/ssl/certs/ca-certificates.crt)

install_engine() {
  mkdir -p "$DOCKER_CONFIG/cli-plugins"
  if ! command -v dockerd >/dev/null || ! command -v mmdebstrap >/dev/null || ! command -v ip >/dev/null; then
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends docker.io mmdebstrap iproute2 >"$STATE/apt.log" 2>&1
  fi
  [ -x "$COMPOSE" ] || fetch_compose
  start_dockerd env -- --bridge=none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false
  make_stand_ins
  stop_engine
}

mirror() { awk '/^URIs:/ { print $2; exit }' /etc/apt/sources.list.d/debian.sources; }

# Compose v2 came with Debian 13; its one binary runs on 12.
fetch_compose() {
  local apt=$STATE/apt
  mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(mirror) trixie main" >"$apt/sources.list"
  local options=(-qq -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$apt/lists"
    -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=root)
  apt-get "${options[@]}" update
  (cd "$apt" && apt-get "${options[@]}" download docker-compose)
  dpkg -x "$apt"/docker-compose_*.deb "$apt/unpacked"
  cp "$apt/unpacked/usr/libexec/docker/cli-plugins/docker-compose" "$COMPOSE"
  rm -rf "$apt"
}

images_of() { sed -nE "s/^ *(FROM|image:) +($1:[^ ]+).*/\2/p" "$PROJECT/docker-compose.yml" "$PROJECT/infra/docker/Dockerfile" | sort -u; }

make_stand_ins() {
  local context=$STATE/context
  rm -rf "$context"
  mkdir -p "$context/host"
  if ! docker image inspect stand-in/debian >/dev/null 2>&1; then
    mmdebstrap -q --variant=apt --include=ca-certificates bookworm - "$(mirror)" | docker import - stand-in/debian >/dev/null
  fi
  tar -chf - $(ls -d "${HOST_FILES[@]}" /etc/apt/apt.conf.d/99* 2>/dev/null) 2>/dev/null | tar -xf - -C "$context/host"
  stand_in python <<'D'
# A virtual environment at /usr/local has the layout of the official image.
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/* \
 && python3 -m venv /usr/local && ln -sf python3 /usr/local/bin/python3.11
CMD ["python3"]
D
  stand_in redis <<'D'
RUN apt-get update && apt-get install -y --no-install-recommends redis-server && rm -rf /var/lib/apt/lists/* \
 && mkdir -p /data && chown redis:redis /data
WORKDIR /data
VOLUME /data
CMD ["redis-server"]
D
  stand_in postgres <<'D'
# As the official image: the first start makes the cluster, its user and its database from the environment.
RUN apt-get update && apt-get install -y --no-install-recommends postgresql && rm -rf /var/lib/apt/lists/* \
 && rm -rf /var/lib/postgresql && mkdir -p /var/lib/postgresql/data && chown -R postgres:postgres /var/lib/postgresql \
 && install -d -m 3777 -o postgres -g postgres /run/postgresql && ln -s /usr/lib/postgresql/*/bin/* /usr/local/bin/ \
 && printf '%s\n' '#!/bin/sh' 'set -e' \
    'if [ ! -s "$PGDATA/PG_VERSION" ]; then' \
    '  initdb --username="$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" --auth-local=trust --auth-host=scram-sha-256' \
    '  echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"' \
    '  pg_ctl -w -o "-c listen_addresses=" start' \
    '  createdb --username="$POSTGRES_USER" "$POSTGRES_DB"' \
    '  pg_ctl -w -m fast stop' \
    'fi' \
    'exec "$@"' >/usr/local/bin/docker-entrypoint.sh \
 && chmod 755 /usr/local/bin/docker-entrypoint.sh
ENV PGDATA=/var/lib/postgresql/data
VOLUME /var/lib/postgresql/data
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["postgres", "-c", "listen_addresses=*"]
D
  stand_in caddy <<'D'
RUN apt-get update && apt-get install -y --no-install-recommends caddy && rm -rf /var/lib/apt/lists/*
CMD ["caddy"]
D
}

stand_in() {
  local body tag
  body=$(cat)
  for tag in $(images_of "$1"); do
    docker image inspect "$tag" >/dev/null 2>&1 && continue
    printf '%s\n' 'FROM stand-in/debian' 'RUN rm -f /etc/apt/sources.list' 'COPY host/ /' "$body" \
      'ENV NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt' \
      'ENV LANG=C.UTF-8 PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin' >"$STATE/context/$1"
    DOCKER_BUILDKIT=0 docker build -q --network=host -t "$tag" -f "$STATE/context/$1" "$STATE/context" >>"$STATE/build.log" 2>&1 \
      || { tail "$STATE/build.log"; return 1; }
    echo "a stand-in for $tag is made"
  done
}

build() {
  start_dockerd env -- --bridge=none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false
  { echo "services:"; for service in "$@"; do printf '  %s: { build: { network: host } }\n' "$service"; done; } >"$STATE/build.yaml"
  (cd "$PROJECT" && docker compose -f docker-compose.yml -f "$STATE/build.yaml" --profile '*' --progress plain build "$@") \
    >"$STATE/build.log" 2>&1 || { tail -n 40 "$STATE/build.log"; stop_engine; return 1; }
  docker image ls --format '{{.Repository}}	{{.Size}}' | grep ^chatserver- | sort -u
  stop_engine
}

start_dockerd() {  # COMMAND… -- OPTION…
  local prefix=()
  while [ "$1" != -- ]; do prefix+=("$1"); shift; done
  shift
  stop_engine
  setsid nohup "${prefix[@]}" sh -c 'ip link set lo up; exec dockerd "$@"' - -H "$DOCKER_HOST" --data-root "$STATE/data" \
    --exec-root "$STATE/exec" --pidfile "$STATE/dockerd.pid" "$@" >>"$STATE/dockerd.log" 2>&1 </dev/null &
  for _ in $(seq 240); do docker info >/dev/null 2>&1 && return; sleep 0.25; done
  tail "$STATE/dockerd.log"
  return 1
}

start() {
  start_dockerd unshare -n -- --bip 172.17.0.1/16 --dns 172.17.0.1
  # Names that nobody has must fail at once: without a resolver, that of a stopped service takes 10 s.
  setsid nohup "$0" inside python3 "$(dirname "$0")/no_such_name.py" 172.17.0.1 >"$STATE/names.log" 2>&1 </dev/null &
  echo $! >"$STATE/names.pid"
}

stop_engine() {
  local file pid
  for file in names dockerd; do
    pid=$(cat "$STATE/$file.pid" 2>/dev/null) || continue
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 240); do kill -0 "$pid" 2>/dev/null || break; sleep 0.25; done
    rm -f "$STATE/$file.pid"
  done
  umount "$STATE"/exec/netns/* 2>/dev/null || true  # else each run leaves a namespace behind
}

mkdir -p "$STATE"
action=$1
shift
case $action in
  install) install_engine ;;
  build) build "$@" ;;
  start) start ;;
  stop) stop_engine ;;
  inside) exec nsenter -t "$(cat "$STATE/dockerd.pid")" -n "$@" ;;
  compose) cd "$PROJECT" && exec docker compose "$@" ;;
  docker) exec docker "$@" ;;
  *) echo "engine.sh: $action is none of install, build, start, stop, inside, compose, docker" >&2; exit 2 ;;
esac
