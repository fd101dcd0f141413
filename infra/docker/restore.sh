#!/bin/sh
# Puts a backup of backup.sh into the volumes of a deployment that is down: infra/docker/restore.sh FOLDER
#
# It refuses to write over a Redis or a database that has data. To go back on purpose, remove those volumes first:
# docker volume rm chatserver_redis chatserver_database. A backup of a build without a database has no database.dump.
set -eu

[ $# = 1 ] || { echo "usage: infra/docker/restore.sh FOLDER" >&2; exit 2; }
folder=$(cd "$1" && pwd)
cd "$(dirname "$0")/../.."
[ -f "$folder/SHA256SUMS" ] || { echo "$folder has no SHA256SUMS: the backup was not finished; use another" >&2; exit 2; }
(cd "$folder" && sha256sum --check --quiet SHA256SUMS)

[ -z "$(docker compose --profile '*' ps --quiet)" ] || { echo "the deployment is up: docker compose --profile '*' down" >&2; exit 2; }

in_volumes() { docker compose run --rm --no-deps -T secrets "$@"; }
in_redis() { docker compose run --rm --no-deps -T --entrypoint sh redis -c "$1"; }

if [ -n "$(in_redis 'ls -A /data')" ]; then
  echo "the volume of Redis has data; remove it when that data may go: docker volume rm ${COMPOSE_PROJECT_NAME:-chatserver}_redis" >&2
  exit 2
fi
if [ -f "$folder/database.dump" ] && [ -n "$(docker compose run --rm --no-deps -T --entrypoint ls database -A /var/lib/postgresql/data)" ]; then
  echo "the volume of the database has data; remove it when that data may go: docker volume rm ${COMPOSE_PROJECT_NAME:-chatserver}_database" >&2
  exit 2
fi
in_volumes tar -C /secrets -xf - <"$folder/secrets.tar"
in_volumes tar -C /state -xzf - <"$folder/state.tar.gz"
# Redis reads no RDB file beside an append-only file, but an append-only file may begin with one.
in_redis '
  set -e
  mkdir /data/appendonlydir
  cat >/data/appendonlydir/appendonly.aof.1.base.rdb
  echo "file appendonly.aof.1.base.rdb seq 1 type b" >/data/appendonlydir/appendonly.aof.manifest' <"$folder/redis.rdb"
if [ -f "$folder/database.dump" ]; then
  docker compose up --detach --wait database
  docker compose exec -T database pg_restore -U chatserver -d chatserver --exit-on-error --no-owner <"$folder/database.dump"
  docker compose stop database
fi
echo "restored; start it: docker compose up -d"
