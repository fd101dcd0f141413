#!/usr/bin/env bash
# A part of the setup of serve-redis-web.yaml: Redis 7 or newer, with TLS, from its makers where the system's is older.
set -euo pipefail

recent() { command -v redis-server >/dev/null && redis-server --version | grep -qE ' v=([7-9]|[1-9][0-9])\.'; }

if ! recent; then
  . /etc/os-release
  sudo apt-get update -qq
  sudo apt-get install -y -qq --no-install-recommends ca-certificates curl gpg openssl
  curl -fsSL https://packages.redis.io/gpg | sudo gpg --dearmor --yes -o /usr/share/keyrings/redis.gpg
  echo "deb [signed-by=/usr/share/keyrings/redis.gpg] https://packages.redis.io/deb $VERSION_CODENAME main" |
    sudo tee /etc/apt/sources.list.d/redis.list >/dev/null
  sudo apt-get update -qq
  sudo apt-get install -y -qq --no-install-recommends redis-server redis-tools
  sudo systemctl disable --now redis-server 2>/dev/null || true  # ours is started with its own settings
fi
recent || { echo "no Redis 7 or newer could be installed: $(redis-server --version 2>&1)" >&2; exit 1; }
