#!/usr/bin/env bash
# What serve-worker.yaml and serve-vllm.yaml run: one worker. SIGTERM lets it hand its requests back; it then ends with 33, whereupon a managed
# job starts it elsewhere. (Were that 0, the job would count as done when a machine is taken away.)
set -euo pipefail
umask 077

python=${PYTHON:-}
[ -n "$python" ] || python="$HOME/chatserver-env/$(hostname)/bin/python"
export PATH="$(dirname "$python"):$PATH"

if [ -z "$REDIS_URL" ]; then
  echo "REDIS_URL is empty: launch with --secret REDIS_URL, such as rediss://worker:PASSWORD@ADDRESS:6380/0" >&2
  exit 2
fi
if [ -n "${REDIS_CA:-}" ]; then
  ca="$HOME/redis-ca.crt"
  printf '%s\n' "$REDIS_CA" >"$ca"
  case "$REDIS_URL" in *\?*) joint='&' ;; *) joint='?' ;; esac
  # That authority signed one certificate only, so who has it is our Redis, whatever address it has by now.
  REDIS_URL="$REDIS_URL${joint}ssl_ca_certs=$ca&ssl_check_hostname=false"
fi
export REDIS_URL
export CHATSERVER_MODEL="${MODEL/#\~/$HOME}" CHATSERVER_SERVED_NAME="$SERVED_NAME" CHATSERVER_STATE_DIR="$HOME/.chatserver"
export CHATSERVER_ENGINE="${ENGINE:-auto}" CHATSERVER_SLOTS="${SLOTS:-16}"
[ -n "${HF_TOKEN:-}" ] || unset HF_TOKEN
unset REDIS_CA

"$python" -m workers &
worker=$!
stopping=
trap 'stopping=1; kill -TERM "$worker" 2>/dev/null' TERM INT
code=0
while kill -0 "$worker" 2>/dev/null; do  # a signal interrupts the waiting, not the worker
  wait "$worker" && code=0 || code=$?
done
if [ -n "$stopping" ] || [ "$code" = 0 ]; then
  echo "the worker has handed its requests back"
  exit 33
fi
exit "$code"
