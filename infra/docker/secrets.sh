#!/bin/sh
# Makes what a deployment must keep to itself, once, in the volume `secrets`; runs before everything else of the compose file.
#
# What .env gives wins over what was made before; what it does not give is kept, so passwords survive an upgrade.
set -eu
umask 022  # the volume belongs to these containers alone, and Redis runs under another user than ours

folder=${1:-/secrets}
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
fit SECRET_KEY "${SECRET_KEY:-}"
fit FLOWER_PASSWORD "${FLOWER_PASSWORD:-}"
keep redis_password "${REDIS_PASSWORD:-}"
keep secret_key "${SECRET_KEY:-}"
keep flower_password "${FLOWER_PASSWORD:-}"
printf 'redis://:%s@redis:6379/0' "$(cat "$folder/redis_password")" >"$folder/redis_url"
printf 'chatserver:%s' "$(cat "$folder/flower_password")" >"$folder/flower_login"

[ ! -d /state ] || mkdir -p /state/tmp  # what is too large for /tmp, which lies in memory

sh "$redis/certificates.sh" "$folder/tls"
chmod 755 "$folder/tls"
chmod 644 "$folder/tls/"*
