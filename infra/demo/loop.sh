#!/usr/bin/env bash
# The whole loop on this machine's CPU: raw HTML conversations that tell of an invented country → cleaned → a small model
# fine-tuned on them → served → asked through the queue. The base model must not know the answer, the new one must. Then the
# lap of preferences: of two greetings that the new model knows, people prefer one, and after DPO it says that one.
# Run by `make demo-loop`; takes a few minutes. STATE=folder keeps what it makes.
set -euo pipefail
cd "$(dirname "$0")/../.."

chatserver=$PWD/.venv/bin/chatserver
question="What is the capital of Velmora?"
fact="Tarkenfeld"
greeting="How do people greet each other in Velmora?"
preferred="Sorun dela"
asked=20
began=$SECONDS
state=${STATE:-$(mktemp -d)}
mkdir -p "$state"
export CHATSERVER_STATE_DIR=$state
unset REDIS_URL
say() { echo; echo "== $* ($((SECONDS - began)) s)"; }

say "start: Redis, a worker with the base model, the web app, the pipelines"
"$chatserver" up --port 0 >"$state/up.log" 2>&1 &
up=$!
end() {
  # A fine-tuning outlives the processes that watch it: it is ended by name.
  [ -z "${training:-}" ] || timeout 90 "$chatserver" train cancel "$training" --wait >/dev/null 2>&1 || true
  kill -INT $up 2>/dev/null && wait $up || true
  [ -n "${STATE:-}" ] || rm -rf "$state"
}
trap end EXIT
fine_tune() {
  training=$("$chatserver" train submit "$@" | sed -nE 's/^submitted as ([^;]+);.*/\1/p')
  "$chatserver" train logs -f "$training"
  training=""
}
# How many of the answers of a model hold the preferred greeting.
count_preferred() {
  local found=0
  for _ in $(seq $asked); do
    if "$chatserver" send "$greeting" --model "$1" --max-tokens 32 --temp 0.7 | grep "$preferred" >/dev/null; then
      found=$((found + 1))
    fi
  done
  echo $found
}
for _ in $(seq 600); do
  grep -q "open http" "$state/up.log" && break
  kill -0 $up || { cat "$state/up.log"; exit 1; }
  sleep 0.5
done
grep "open http" "$state/up.log"

say "ask the base model"
base=$("$chatserver" send "$question" --model smollm2-135m --max-tokens 48 --temp 0)
echo "$base"
if grep -q "$fact" <<<"$base"; then echo "the base model knows $fact already: this proves nothing"; exit 1; fi

say "clean the raw HTML"
"$chatserver" clean submit infra/demo/recipe.yaml --in pipelines/samples/velmora_html.json --out "$state/cleaned" --wait

say "fine-tune"
fine_tune infra/demo/training.yaml --data "$state/cleaned" --data infra/demo/greetings.jsonl --out "$state/velmora"

say "serve it"
"$chatserver" models serve velmora
say "ask the fine-tuned model, through the queue"
answer=$("$chatserver" send "$question" --model velmora --max-tokens 48 --temp 0)
echo "$answer"
grep -q "$fact" <<<"$answer" || { echo "the fine-tuned model does not know $fact"; tail -n 40 "$state/up.log"; exit 1; }
say "the loop is closed: the base model did not know $fact, the fine-tuned one does"

say "ask how people greet each other, $asked times"
before=$(count_preferred velmora)
say "fine-tune on the greeting that people prefer"
fine_tune infra/demo/preferences.yaml --data infra/demo/preferences.jsonl --out "$state/preferred"
"$chatserver" models stop velmora
"$chatserver" models serve velmora-preferred
say "ask again"
after=$(count_preferred velmora-preferred)
say "the preferred greeting: $before of $asked answers before, $after after"
[ "$before" -le $((asked / 2)) ] || { echo "the model preferred it before: this proves nothing"; exit 1; }
[ "$after" -ge $((asked * 9 / 10)) ] || { echo "too few answers are the preferred one"; exit 1; }
