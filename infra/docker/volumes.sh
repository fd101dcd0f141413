#!/bin/sh
# Moves what an older build kept in the volume `state` into the volumes that have it now; secrets.sh runs it at every start.
#
#   volumes.sh [OLD [NEW]]     OLD: the whole volume `state`; in NEW the new ones are mounted at `trained` and `home`
#
# `trained` is all that workers read of a state folder; `home`, the trainer's, has the accounts of clouds. A start that was
# killed in the middle goes on at the next one. Nothing is written over: what is in both places stays in both.
set -eu

old=${1:-/volumes/state}
new=${2:-/state}
[ -d "$old" ] || exit 0

# move FROM INTO: whole or not at all
move() {
  to=$2/$(basename "$1")
  if [ -e "$to" ] || [ -L "$to" ]; then
    echo "$1 of an older build stays in the volume state: there is another $to" >&2
    return
  fi
  rm -rf "$2/.moving"
  mkdir "$2/.moving"
  cp -a "$1" "$2/.moving/"
  mv "$2/.moving/$(basename "$1")" "$to"
  rm -rf "$1" "$2/.moving"
}

for run in "$old"/trained/*; do
  if [ -e "$run/.run/lock" ] && ! flock -n "$run/.run/lock" true; then
    echo "a fine-tuning runs in $run; stop it before this update, it goes on afterwards: docker compose --profile train stop trainer" >&2
    exit 2
  fi
done
for model in "$old"/trained/*; do
  [ ! -e "$model" ] || move "$model" "$new/trained"
done
for hidden in "$old"/.[!.]*; do  # a home's own files, such as .aws, .ssh and .sky
  [ ! -e "$hidden" ] || move "$hidden" "$new/home"
done
