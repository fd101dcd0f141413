#!/usr/bin/env bash
# `make test-compose`: installs an engine, builds the images, runs tests/compose beside the containers, takes all down.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
engine=tests/compose/engine.sh

skip() { echo "test-compose is skipped: $1"; exit 0; }
[ "$(uname -s)" = Linux ] || skip "it starts a container engine by hand, which needs Linux"
[ "$(id -u)" = 0 ] || skip "a container engine is started by root only"
command -v apt-get >/dev/null && [ -f /etc/apt/sources.list.d/debian.sources ] || skip "its engine comes from Debian's packages"
unshare -n true 2>/dev/null || skip "this machine allows no network namespaces"

began=$SECONDS
$engine install
echo "the engine is installed after $((SECONDS - began)) s"
$engine build web worker cleaner
echo "the images are built after $((SECONDS - began)) s"
trap '$engine compose --profile "*" down --volumes --timeout 5 >/dev/null 2>&1 || true; $engine stop' EXIT
$engine start
$engine inside "$python" -m pytest --compose tests/compose -v -s "$@"
echo "test-compose took $((SECONDS - began)) s"
