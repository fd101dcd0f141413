#!/bin/sh
# Makes what a deployment must keep to itself, once, in the volume `secrets`; runs before everything else of the compose file.
#
#   secrets.sh [FOLDER [SHARES]]
#
# What .env gives wins over what was made before; what it does not give is kept, so passwords survive an upgrade. No other
# service sees this volume: each kind has its own in SHARES, with what it needs and no more.
set -eu
umask 022  # each volume belongs to its containers alone, and Redis runs under another user than ours

folder=${1:-/secrets}
shares=${2:-/shares}
redis=$(dirname "$0")/../redis

# keep NAME VALUE: a value given, else the one that is there, else a fresh one
keep() {
  if [ -n "$2" ]; then
    printf %s "$2" >"$folder/$1.new"
    mv "$folder/$1.new" "$folder/$1"
  elif [ ! -s "$folder/$1" ]; then
    python3 -c 'import secrets; print(secrets.token_hex(32), end="")' >"$folder/$1.new"
    mv "$folder/$1.new" "$folder/$1"
  fi
}

# fit NAME VALUE: nothing that a URL or a configuration file would have to quote
fit() {
  case $2 in
    "" ) return ;;
    *[!A-Za-z0-9._~-]* ) echo "$1 in .env may have letters, digits and . _ ~ - only: openssl rand -hex 32 makes one" >&2; exit 2 ;;
  esac
  [ "${#2}" -ge 16 ] || { echo "$1 in .env has ${#2} characters; 16 are the least: openssl rand -hex 32 makes one" >&2; exit 2; }
}

fit REDIS_PASSWORD "${REDIS_PASSWORD:-}"
fit WORKER_PASSWORD "${WORKER_PASSWORD:-}"
fit SECRET_KEY "${SECRET_KEY:-}"
fit FLOWER_PASSWORD "${FLOWER_PASSWORD:-}"
keep redis_password "${REDIS_PASSWORD:-}"
keep worker_password "${WORKER_PASSWORD:-}"
keep secret_key "${SECRET_KEY:-}"
keep job_key ""
keep database_password ""
keep flower_password "${FLOWER_PASSWORD:-}"
[ ! -d /state ] || mkdir -p /state/tmp  # what is too large for /tmp, which lies in memory
sh "$(dirname "$0")/volumes.sh"

sh "$redis/certificates.sh" "$folder/tls"
chmod 755 "$folder/tls"
chmod 644 "$folder/tls/"*

# write FILE TEXT: whole or not at all, for whoever reads meanwhile
write() {
  mkdir -p "$(dirname "$1")"
  printf %s "$2" >"$1.new"
  mv "$1.new" "$1"
}

# share KIND NAME…: those files, and in redis_url the login under which that kind comes
share() {
  kind=$1 login=$2
  shift 2
  [ -z "$login" ] || write "$shares/$kind/redis_url" "redis://$login@redis:6379/0"
  for name; do
    mkdir -p "$(dirname "$shares/$kind/$name")"
    cp "$folder/$name" "$shares/$kind/$name.new"
    mv "$shares/$kind/$name.new" "$shares/$kind/$name"
  done
}

everything=":$(cat "$folder/redis_password")"
share redis "" redis_password worker_password tls/ca.crt tls/redis.crt tls/redis.key
share database "" database_password
share web "$everything" secret_key job_key
share pipelines "$everything" job_key
for kind in web pipelines; do
  write "$shares/$kind/database_url" "postgresql://chatserver:$(cat "$folder/database_password")@database:5432/chatserver"
done
share flower "$everything" flower_password
share worker "worker:$(cat "$folder/worker_password")"
write "$shares/flower/flower_login" "chatserver:$(cat "$folder/flower_password")"
