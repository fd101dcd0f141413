#!/bin/sh
# Redis in the compose file: infra/redis/redis.conf, a password for all and one for workers, TLS beside it, data in /data.
#
# After a crash the append-only file may end in half a transaction, which Redis 7.0 would apply at the start after this one:
# so the file is rewritten at every start.
set -eu
umask 077

cat >/tmp/redis.conf <<CONF
include /etc/chatserver/redis.conf
bind * -::*
tls-port 6380
tls-cert-file /secrets/tls/redis.crt
tls-key-file /secrets/tls/redis.key
tls-ca-cert-file /secrets/tls/ca.crt
tls-auth-clients no
tls-protocols "TLSv1.2 TLSv1.3"
requirepass $(cat /secrets/redis_password)
user worker on >$(cat /secrets/worker_password) $(sed '/^#/d' /etc/chatserver/worker.acl | tr '\n' ' ')
maxmemory ${REDIS_MAXMEMORY:-0}
dir /data
CONF

REDISCLI_AUTH=$(cat /secrets/redis_password)
export REDISCLI_AUTH

redis-server /tmp/redis.conf &
redis=$!
trap 'kill -TERM "$redis"' TERM INT

until [ "$(redis-cli ping 2>/dev/null)" = PONG ]; do
  kill -0 "$redis" 2>/dev/null || { echo "Redis did not start; its lines above say why" >&2; exit 1; }
  sleep 0.2
done
redis-cli bgrewriteaof >/dev/null

code=0
while kill -0 "$redis" 2>/dev/null; do
  wait "$redis" && code=0 || code=$?
done
exit "$code"
