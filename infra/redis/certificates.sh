#!/bin/sh
# Makes the certificate of a Redis with TLS, once: certificates.sh FOLDER
#
# FOLDER gets redis.key, redis.crt and ca.crt. The own authority signs this one certificate and its key is removed, so
# who trusts ca.crt trusts this Redis alone, whatever address it has: clients need not check the name.
set -eu
umask 077

folder=$1
[ ! -f "$folder/redis.crt" ] || exit 0

draft="$folder.new"
rm -rf "$draft"
mkdir -p "$draft"
cd "$draft"
{
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN=chatserver-redis-ca \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign -keyout ca.key -out ca.crt
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=chatserver-redis -keyout redis.key -out redis.csr
  printf 'subjectAltName=DNS:chatserver-redis,DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n' >extensions
  openssl x509 -req -in redis.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -out redis.crt -extfile extensions
} 2>openssl.log || { cat openssl.log >&2; exit 1; }
rm -f ca.key ca.srl redis.csr extensions openssl.log
cd - >/dev/null
rm -rf "$folder"
mv "$draft" "$folder"
