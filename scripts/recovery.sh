#!/usr/bin/env bash
# How soon a cluster of processes recovers, over QUIC on loopback with all settings at their defaults (examples/member.rs).
# scripts/recovery.sh [kill|leave|form|quiet ..]: a line a run, then least, median and most; exit 1 when a limit is broken.
#   kill   SIGKILL of one node of 5: unreachable for all others in 3 s, removed in 7 s
#   leave  SIGTERM of one node of 5: it has ended and is removed for all others in 2 s
#   form   20 processes started at once: each sees all 20 up, in one cluster, in 10 s
#   quiet  20 nodes beside a busy loop on every core: nobody is called unreachable
# Without names all of them, in 20 to 25 minutes. RUNS=20 of each, MINUTES=10 of the last; BASE_PORT=17000 and the 19 above
# must be free; MEMBER is the program if it is built already. Other work on the machine makes the figures worse, and is
# part of the last one.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
runs=${RUNS:-20} minutes=${MINUTES:-10} base=${BASE_PORT:-17000}
[ $# -gt 0 ] || set -- kill leave form quiet

if [ -z "${MEMBER:-}" ]; then
  cargo build --locked --quiet --release --example member || exit 1
  MEMBER=$PWD/${CARGO_TARGET_DIR:-target}/release/examples/member
fi
work=$(mktemp -d)
declare -A pids=() busy=()
failed=0

stop_all() {
  [ ${#pids[@]} -eq 0 ] || kill -9 "${pids[@]}" 2>/dev/null
  [ ${#busy[@]} -eq 0 ] || kill -9 "${busy[@]}" 2>/dev/null
  wait 2>/dev/null
  pids=() busy=()
}
trap 'stop_all; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

start() { # start COUNT: as many nodes at once, the first three are seeds
  local n
  rm -rf "${work:?}"/*
  for n in $(seq "$1"); do
    "$MEMBER" "node-$n" "127.0.0.1:$((base + n - 1))" "$work/data" "127.0.0.1:$base" "127.0.0.1:$((base + 1))" \
      "127.0.0.1:$((base + 2))" >"$work/node-$n" 2>"$work/node-$n.err" &
    pids[$n]=$!
  done
}

# The last of the moments at which the nodes (all but WITHOUT) saw it happen to the member; fails if one has not.
seen() { # seen COUNT WITHOUT WHAT MEMBER
  local n
  for n in $(seq "$1"); do
    [ "$n" = "$2" ] || awk -v what="$3" -v whom="$4" '$2 == what && $3 == whom { print $1; found = 1; exit } END { exit !found }' \
      "$work/node-$n" || return 1
  done | sort -n | tail -n 1
}

# As `seen`, of all COUNT members becoming up.
seen_up() { # seen_up COUNT
  local n
  for n in $(seq "$1"); do
    awk -v count="$1" '$2 == "up" && !($3 in seen) { seen[$3]; if (++up == count) { print $1; exit } } END { exit up < count }' \
      "$work/node-$n" || return 1
  done | sort -n | tail -n 1
}

within() { # within SECONDS COMMAND..: until it succeeds; its output
  local until=$((SECONDS + $1)) output
  shift
  until output=$("$@"); do
    [ "$SECONDS" -lt "$until" ] || return 1
    sleep 0.1
  done
  echo "$output"
}

since() { awk -v from="$1" -v to="$2" 'BEGIN { printf "%.2f", to - from }'; }

broken() { # broken WHAT: the run is of no use
  echo "$1"
  failed=1
  tail -n 3 "$work"/node-*
}

figures() { # figures NAME LIMIT VALUE..: prints them and holds the limit
  local name=$1 limit=$2
  shift 2
  printf '%s\n' "$@" | sort -n | awk -v name="$name" -v limit="$limit" -v runs="$runs" '{ all[NR] = $1 }
    END { broken = NR < runs || all[NR] > limit
      printf "%s: %d runs, least %.2f s, median %.2f s, most %.2f s, limit %s s: %s\n", name, NR, all[1],
        (all[int((NR + 1) / 2)] + all[int(NR / 2) + 1]) / 2, all[NR], limit, broken ? "BROKEN" : "reached"
      exit broken }' || failed=1
}

formed_5() { # a cluster of five that has existed for some heartbeats
  start 5
  within 30 seen_up 5 >/dev/null || return 1
  sleep "5.$((RANDOM % 1000 + 1000))"
}

run_kill() {
  local run victim at lost removed all_lost=() all_removed=()
  for run in $(seq "$runs"); do
    victim=$(((run - 1) % 5 + 1))
    formed_5 || { broken "kill $run: no cluster was formed"; stop_all; continue; }
    at=$EPOCHREALTIME
    kill -9 "${pids[$victim]}"
    disown "${pids[$victim]}"
    unset "pids[$victim]"
    if removed=$(within 30 seen 5 "$victim" removed "node-$victim") && lost=$(seen 5 "$victim" unreachable "node-$victim"); then
      all_lost+=("$(since "$at" "$lost")") all_removed+=("$(since "$at" "$removed")")
      echo "kill $run: node-$victim is unreachable for all after ${all_lost[-1]} s, removed after ${all_removed[-1]} s"
    else
      broken "kill $run: node-$victim was not removed for all"
    fi
    stop_all
  done
  figures "unreachable after SIGKILL" 3 "${all_lost[@]}"
  figures "removed after SIGKILL" 7 "${all_removed[@]}"
}

run_leave() {
  local run leaver at removed ended all=()
  for run in $(seq "$runs"); do
    leaver=$(((run - 1) % 5 + 1))
    formed_5 || { broken "leave $run: no cluster was formed"; stop_all; continue; }
    at=$EPOCHREALTIME
    kill -TERM "${pids[$leaver]}"
    wait "${pids[$leaver]}" || broken "leave $run: node-$leaver ended with status $?"
    ended=$EPOCHREALTIME
    unset "pids[$leaver]"
    if removed=$(within 30 seen 5 "$leaver" removed "node-$leaver") && ! grep -q unreachable "$work"/node-?; then
      all+=("$(since "$at" "$(printf '%s\n' "$removed" "$ended" | sort -n | tail -n 1)")")
      echo "leave $run: node-$leaver is removed for all after $(since "$at" "$removed") s and has ended after $(since "$at" "$ended") s"
    else
      broken "leave $run: node-$leaver was not removed in peace"
    fi
    stop_all
  done
  figures "left after SIGTERM" 2 "${all[@]}"
}

run_form() {
  local run at up all=()
  for run in $(seq "$runs"); do
    at=$EPOCHREALTIME
    start 20
    if up=$(within 60 seen_up 20); then
      all+=("$(since "$at" "$up")")
      echo "form $run: 20 nodes are up for all after ${all[-1]} s"
    else
      broken "form $run: no cluster of 20"
    fi
    grep -H ' else ' "$work"/node-* && failed=1
    stop_all
  done
  figures "one cluster of 20" 10 "${all[@]}"
}

run_quiet() {
  local core alarms
  start 20
  within 60 seen_up 20 >/dev/null || { broken "quiet: no cluster was formed"; stop_all; return; }
  for core in $(seq "$(nproc)"); do
    while :; do :; done &
    busy[$core]=$!
  done
  sleep $((minutes * 60))
  alarms=$(grep -hE ' (unreachable|down|else|missed) ' "$work"/node-* | wc -l)
  echo "quiet: $alarms alarms in $minutes min at 20 nodes, all $(nproc) cores busy, load $(cut -d ' ' -f 1 /proc/loadavg)"
  [ "$alarms" -eq 0 ] || { failed=1; grep -hE ' (unreachable|down|else|missed) ' "$work"/node-* | sort -n | head -n 20; }
  [ "$(jobs -pr | wc -l)" -eq $((20 + $(nproc))) ] || { broken "quiet: a node has ended"; }
  stop_all
}

for what; do
  case $what in
    kill | leave | form | quiet) "run_$what" ;;
    *) echo "there is no $what, only kill, leave, form and quiet" >&2; exit 2 ;;
  esac
done
exit "$failed"
