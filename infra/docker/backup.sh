#!/bin/sh
# Saves a running deployment of docker-compose.yml: infra/docker/backup.sh FOLDER
#
# FOLDER gets redis.rdb (queues, answers, dead letters, jobs: one moment, taken while everything runs), database.dump
# (conversations, accounts, votes: one moment, after that of Redis, so no answer is in neither), secrets.tar (passwords) and state.tar.gz (jobs' folders, uploads, trained models; not what can be downloaded or made again). SHA256SUMS is written
# last: without it the backup is not whole. restore.sh is the way back.
set -eu
umask 077

[ $# = 1 ] || { echo "usage: infra/docker/backup.sh FOLDER" >&2; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
[ -z "$(ls -A "$folder")" ] || { echo "$folder is not empty; give a new folder" >&2; exit 2; }
cd "$(dirname "$0")/../.."

in_volumes() { docker compose run --rm --no-deps -T secrets "$@"; }

# Into a file first: what redis-cli writes to a pipe may end in the mark of the transfer.
docker compose exec -T redis sh -c '
  set -e
  export REDISCLI_AUTH=$(cat /secrets/redis_password)
  copy=/data/backup.$$.rdb
  trap "rm -f $copy" EXIT
  redis-cli --rdb $copy >&2
  cat $copy' >"$folder/redis.rdb" 2>"$folder/redis.log" || { cat "$folder/redis.log" >&2; exit 1; }
rm "$folder/redis.log"
docker compose exec -T database pg_dump -U chatserver -Fc chatserver >"$folder/database.dump"
in_volumes tar -C /secrets -cf - . >"$folder/secrets.tar"
# 1 means that a file changed while it was read: a job goes on, and takes up what is half written as after a crash.
in_volumes sh -c 'tar -C /state --exclude=./huggingface --exclude=./copied --exclude=./converted --exclude=./tmp -czf - . || [ $? = 1 ]' \
  >"$folder/state.tar.gz"

cd "$folder"
sha256sum redis.rdb database.dump secrets.tar state.tar.gz >SHA256SUMS.new
mv SHA256SUMS.new SHA256SUMS
du -sh "$folder"
