#!/usr/bin/env bash
# Runs our bench of two nodes beside the same workloads for other actor libraries, and prints who is how fast.
#   scripts/bench-remote-peers.sh [--peers DIR] [--rounds N] [--only "GROUP..."]
# DIR (default ../shared/peers) holds the other libraries' programs; they are built and run, never copied.
# Groups are erl (Erlang, plain and TLS), pekko, rust (ractor, kameo), net (bare transports); default "erl pekko rust".
# What is missing is skipped, and the script says so. Round by round: ours with the floor of quinn, then each group.
# One JSON line a run goes to target/bench/remote.jsonl; scripts/bench-remote-table.py prints the table from it again.
# Ends with status 1 when a target is missed or a run of ours failed.
#   SCRATCH    where the peers are built (default ~/.cache/otava-peers, as their own script has it)
#   NOBUILD    1: what is needed of the peers is in SCRATCH already, build none of them
#   PEKKO_JAR  a jar with Pekko's actor and remote classes (default $SCRATCH/flink-rpc-akka.jar)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

peers_dir=../shared/peers rounds=3 only='erl pekko rust'
usage() { sed -n '2,3s/^# *//p' "$0" >&2; exit 2; }
while [ $# -gt 0 ]; do
  [ $# -gt 1 ] || usage
  case $1 in
    --peers) peers_dir=$2 ;;
    --rounds) rounds=$2 ;;
    --only) only=$2 ;;
    *) usage ;;
  esac
  shift 2
done
case $rounds in '' | *[!0-9]* | 0) usage ;; esac

scratch=$(realpath -m "${SCRATCH:-${XDG_CACHE_HOME:-$HOME/.cache}/otava-peers}")
jar=$(realpath -m "${PEKKO_JAR:-$scratch/flink-rpc-akka.jar}")
out=$(realpath -m "${CARGO_TARGET_DIR:-target}")/bench/remote.jsonl
mkdir -p "$(dirname "$out")" "$scratch"

groups=''
for group in $only; do
  reason=''
  [ -f "$peers_dir/run-remote.sh" ] || reason="no $peers_dir/run-remote.sh"
  case $group in
    erl) command -v erl >/dev/null && command -v erlc >/dev/null || reason='no erl: apt-get install erlang-base' ;;
    pekko) command -v java >/dev/null && [ -f "$jar" ] || reason="no java, or no $jar" ;;
    net | rust) ;;
    *) usage ;;
  esac
  if [ -n "$reason" ]; then echo "skipped: $group ($reason)" >&2; else groups+=" $group"; fi
done

: > "$out"
cargo bench -q -p otava-remote --bench remote --no-run
built=''
for round in $(seq "$rounds"); do
  echo "round $round of $rounds" >&2
  cargo bench -q -p otava-remote --bench remote -- --json >> "$out" || echo '{"peer":"otava","workload":"all","failed":true}' >> "$out"
  if [ -n "$groups" ]; then
    # Its own errors are its own: what it could not run has no line.
    GROUPS_TO_RUN=$groups OUT=$out SCRATCH=$scratch PEKKO_JAR=$jar NOBUILD=${NOBUILD:-$built} "$peers_dir/run-remote.sh" 1 >&2 || true
    built=1
  fi
done
exec scripts/bench-remote-table.py "$out"
