#!/usr/bin/env bash
# Runs the example `flights` N times with each kind of kill and prints the slowest recovery and the throughput.
#   scripts/flights-loop.sh [N] [further options of flights]      default: 20 times each
# Ends with status 1 when a run failed; its output is shown then. The figures of every run, one JSON object a line,
# are kept in the file named at the end.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

runs=${1:-20}
case $runs in '' | *[!0-9]*) echo "usage: $0 [N] [options of flights]" >&2; exit 2 ;; esac
shift || true
target=${CARGO_TARGET_DIR:-target}
cargo build --release --example flights
figures=$(mktemp "${TMPDIR:-/tmp}/flights-loop.XXXXXX")
output=$(mktemp)
trap 'rm -f "$output"' EXIT

field() { sed -n "s/.*\"$1\":\(-\{0,1\}[0-9.]*\).*/\1/p"; }

failed=0
for kill in WORKER COORDINATOR; do
  for run in $(seq "$runs"); do
    status=0
    "$target/release/examples/flights" --kill "$kill" --summary "$figures" "$@" >"$output" 2>&1 </dev/null || status=$?
    if [ "$status" -ne 0 ]; then
      failed=$((failed + 1))
      printf '%-11s %3s: FAILED with exit status %s\n' "$kill" "$run" "$status"
      tail -n 60 "$output"
      continue
    fi
    last=$(tail -n 1 "$figures")
    printf '%-11s %3s: recovery %s s, shards given after %s s, %s/s, p50 %s ms, p99 %s ms\n' "$kill" "$run" \
      "$(field recovery_s <<<"$last")" "$(field shards_given_s <<<"$last")" "$(field per_sec <<<"$last")" \
      "$(field p50_ms <<<"$last")" "$(field p99_ms <<<"$last")"
  done
done

range() { # range FIELD: smallest and largest over all runs
  field "$1" <"$figures" | sort -n | sed -n '1p;$p' | paste -sd' '
}

printf '\n%s of %s runs exact\n' "$((2 * runs - failed))" "$((2 * runs))"
if [ -s "$figures" ]; then
  read -r fastest slowest <<<"$(range recovery_s)"
  printf 'recovery after SIGKILL: %s to %s s (slowest: %s s)\n' "$fastest" "$slowest" "$slowest"
  read -r lowest highest <<<"$(range per_sec)"
  printf 'throughput, whole replay: %s to %s commands/s\n' "$lowest" "$highest"
  read -r lowest highest <<<"$(range undisturbed_per_sec)"
  printf 'throughput, before the kill: %s to %s commands/s\n' "$lowest" "$highest"
  read -r _ most <<<"$(range false_alarms)"
  printf 'false alarms of the failure detector: %s at most in a run\n' "$most"
  printf 'figures of every run: %s\n' "$figures"
fi
[ "$failed" -eq 0 ]
