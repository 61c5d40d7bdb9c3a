#!/usr/bin/env bash
# Runs a command and prints the largest resident memory of every process below it, the command included.
#   scripts/peak-memory.sh target/release/examples/flights --input flights-2013.csv.gz
# Linux only: it reads VmHWM from /proc ten times a second, so a process that lived for less may be missed.
set -euo pipefail
[ $# -gt 0 ] || { echo "usage: $0 COMMAND..." >&2; exit 2; }

"$@" &
root=$!
declare -A peak name
while kill -0 "$root" 2>/dev/null; do
  for pid in "$root" $(pgrep -P "$root" || true); do
    line=$(awk '/^VmHWM/ {print $2}' "/proc/$pid/status" 2>/dev/null || true)
    [ -n "$line" ] || continue
    peak[$pid]=$line
    name[$pid]=$(tr '\0' ' ' <"/proc/$pid/cmdline" | cut -c1-60)
  done
  sleep 0.1
done
status=0
wait "$root" || status=$?
for pid in "${!peak[@]}"; do
  printf '%6s MiB  pid %s  %s\n' "$((peak[$pid] / 1024))" "$pid" "${name[$pid]}"
done | sort -rn
exit "$status"
