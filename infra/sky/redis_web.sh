#!/usr/bin/env bash
# What serve-redis-web.yaml runs: Redis with TLS, password and append-only file, and the web app beside it.
#
# Either is started again when it ends; SIGTERM ends both, Redis last. Everything to keep is in ~/redis: data, and what
# workers need, tls/ca.crt and worker_password.
set -euo pipefail
umask 077

python=${PYTHON:-}
[ -n "$python" ] || python="$HOME/chatserver-env/$(hostname)/bin/python"
home="$HOME/redis"

if [ "${#REDIS_PASSWORD}" -lt 16 ] || [[ $REDIS_PASSWORD =~ [^A-Za-z0-9._~-] ]]; then
  echo "REDIS_PASSWORD must have 16 characters or more, of letters, digits and . _ ~ -: openssl rand -hex 32 makes one" >&2
  exit 2
fi
if [ ! -f webapp/static/app.js ]; then
  echo "the page was not built: run \`make page\` where you launch from, and launch again" >&2
  exit 2
fi

mkdir -p "$home/data"
sh infra/redis/certificates.sh "$home/tls"
[ -s "$home/worker_password" ] || openssl rand -hex 32 >"$home/worker_password"

# In a file, not on a command line that everybody on the machine can read.
cat >"$home/redis.conf" <<CONF
include $PWD/infra/redis/redis.conf
bind $REDIS_BIND
port 0
tls-port $REDIS_TLS_PORT
tls-cert-file $home/tls/redis.crt
tls-key-file $home/tls/redis.key
tls-ca-cert-file $home/tls/ca.crt
tls-auth-clients no
tls-protocols "TLSv1.2 TLSv1.3"
unixsocket $home/redis.sock
unixsocketperm 600
requirepass $REDIS_PASSWORD
user worker on >$(cat "$home/worker_password") $(sed '/^#/d' infra/redis/worker.acl | tr '\n' ' ')
dir $home/data
CONF

ask() { REDISCLI_AUTH=$REDIS_PASSWORD redis-cli -s "$home/redis.sock" "$@" 2>/dev/null; }

start_redis() {
  redis-server "$home/redis.conf" &
  redis=$!
  until [ "$(ask ping)" = PONG ]; do
    kill -0 "$redis" 2>/dev/null || { echo "Redis does not start; its lines above say why" >&2; return; }
    sleep 0.2
  done
  ask bgrewriteaof >/dev/null || true  # after a crash its file may end in half a transaction
}

start_web() {
  env -u REDIS_PASSWORD REDIS_URL="unix://:$REDIS_PASSWORD@$home/redis.sock?db=0" CHATSERVER_STATE_DIR="$HOME/.chatserver" \
    CHATSERVER_HOST=0.0.0.0 CHATSERVER_PORT="$WEB_PORT" "$python" -m webapp &
  web=$!
}

stopping= redis= web=
trap 'stopping=1; kill -TERM $web 2>/dev/null' TERM INT

start_redis
start_web
while [ -z "$stopping" ]; do
  wait -n || true
  [ -z "$stopping" ] || break
  kill -0 "$redis" 2>/dev/null || { echo "Redis ended; starting it again" >&2; start_redis; }
  kill -0 "$web" 2>/dev/null || { echo "the web app ended; starting it again" >&2; start_web; }
  sleep 1
done
while kill -0 "$web" 2>/dev/null; do wait "$web" || true; done
kill -TERM "$redis" 2>/dev/null || true
while kill -0 "$redis" 2>/dev/null; do wait "$redis" || true; done
