#!/usr/bin/env bash
# Runs our bench of local actors beside the same workloads for other actor libraries, and prints who is how fast.
#   scripts/bench-peers.sh [--peers DIR] [--rounds N] [--scale X] [--only "NAME..."] [WORKLOAD...]
# DIR (default ../shared/peers) holds the other libraries' programs; they are built and run, never copied.
# --only names the peers to run. A peer whose program, runtime or jar is missing is skipped, and the script says so.
# Round by round and workload by workload: ours, then each peer, so that noise of the machine hits all alike.
# One JSON line a run goes to target/bench/actors.jsonl; scripts/bench-table.py prints the table from it again.
# Ends with status 1 when a target is missed or a run failed.
#   SCRATCH    where the peers are built (default ~/.cache/otava-peers, as their own script has it)
#   PEKKO_JAR  a jar with Pekko's actor classes (default $SCRATCH/flink-rpc-akka.jar)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

peers_dir=../shared/peers rounds=3 scale=1
only='ractor actix xtra coerce erlang pekko-tuned tokio-mpsc-unb proto-tw-seg3 proto-tw-seg31f proto-twa-hyb'
workloads=()
usage() { sed -n '2,3s/^# *//p' "$0" >&2; exit 2; }
while [ $# -gt 0 ]; do
  case $1 in
    --peers | --rounds | --scale | --only)
      [ $# -gt 1 ] || usage
      case $1 in --peers) peers_dir=$2 ;; --rounds) rounds=$2 ;; --scale) scale=$2 ;; --only) only=$2 ;; esac
      shift ;;
    -*) usage ;;
    *) workloads+=("$1") ;;
  esac
  shift
done
case $rounds in '' | *[!0-9]* | 0) usage ;; esac
case $scale in [0-9]*) ;; *) usage ;; esac
[ ${#workloads[@]} -gt 0 ] ||
  workloads=(pingpong tell fanin8 counting ring forkjoin big ask_seq ask_100 idle flood)

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
scratch=$(realpath -m "${SCRATCH:-${XDG_CACHE_HOME:-$HOME/.cache}/otava-peers}")
jar=$(realpath -m "${PEKKO_JAR:-$scratch/flink-rpc-akka.jar}")
out=$target/bench/actors.jsonl
mkdir -p "$(dirname "$out")" "$scratch/erl" "$scratch/pekko"

# Ours.
cargo bench -q -p otava-actor --bench actors --no-run
ours=$(cargo bench -q -p otava-actor --bench actors --no-run --message-format json 2>/dev/null |
  sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
[ -x "$ours" ] || { echo "the bench was built, but cargo does not say where" >&2; exit 1; }

# Theirs. What cannot be built or run is taken off the list here, with the reason.
skip_all() { # skip_all REASON KIND...: KIND is a prefix of names, or "rust" for all that live in one program
  local reason=$1 kept='' name; shift
  for name in $only; do
    case $name:$* in
      erlang*:erlang | pekko*:pekko) echo "skipped: $name ($reason)" >&2 ;;
      erlang*:rust | pekko*:rust) kept+=" $name" ;;
      *:rust) echo "skipped: $name ($reason)" >&2 ;;
      *) kept+=" $name" ;;
    esac
  done
  only=$kept
}
wants() { # wants KIND: whether one of that kind is on the list
  local name
  for name in $only; do
    case $name:$1 in erlang*:erlang | pekko*:pekko) return 0 ;; erlang*:* | pekko*:*) ;; *:rust) return 0 ;; esac
  done
  return 1
}
if [ ! -d "$peers_dir" ]; then
  skip_all "no folder $peers_dir" rust
  skip_all "no folder $peers_dir" erlang
  skip_all "no folder $peers_dir" pekko
fi
rust=$scratch/target/release/local
if wants rust; then
  (cd "$peers_dir/local" && CARGO_TARGET_DIR=$scratch/target nice cargo build -q --release) >&2 ||
    skip_all "$peers_dir/local does not build" rust
fi
if wants erlang; then
  if ! command -v erl >/dev/null || ! command -v erlc >/dev/null; then
    skip_all "no erl: apt-get install erlang-base" erlang
  else
    erlc -o "$scratch/erl" "$peers_dir/erlang/actorbench.erl" >&2 || skip_all "its program does not compile" erlang
  fi
fi
if wants pekko; then
  if ! command -v java >/dev/null || ! command -v javac >/dev/null; then
    skip_all "no JDK" pekko
  elif [ ! -f "$jar" ]; then
    skip_all "no jar: set PEKKO_JAR, see $peers_dir/README.md" pekko
  else
    javac -cp "$jar" -d "$scratch/pekko" "$peers_dir/pekko/Bench.java" >&2 ||
      skip_all "its program does not compile" pekko
  fi
fi

share() { # share PEER WORKLOAD: how much of a workload a peer is given that would need minutes or many GiB for all of it
  case $1:$2 in
    actix:pingpong | actix:ring | actix:ask_seq) echo 0.1 ;;
    actix:ask_100 | pekko*:forkjoin) echo 0.3 ;;
    ractor:idle | kameo*:idle | ractor:forkjoin | kameo*:forkjoin) echo 0.5 ;;
    pekko*:ask_seq) echo 0.02 ;;
    pekko*:ask_100) echo 0.05 ;;
    *) echo 1 ;;
  esac
}
run_peer() { # run_peer PEER WORKLOAD SCALE
  case $1 in
    erlang) (cd "$scratch/erl" && erl +P 2000000 -noshell -pa . -s actorbench main "$2" "$3") ;;
    pekko-tuned)
      # Two threads for two cores, and as many messages a turn as others handle.
      PEER_TAG=pekko-tuned CONF='pekko.actor.default-dispatcher { throughput = 64
        fork-join-executor { parallelism-min = 2, parallelism-max = 2 } }' \
        java -Xmx6g -cp "$jar:$scratch/pekko" Bench "$2" "$3" ;;
    pekko) java -Xmx6g -cp "$jar:$scratch/pekko" Bench "$2" "$3" ;;
    *) "$rust" "$1" "$2" "$3" ;;
  esac
}
export -f run_peer
export scratch jar rust

note() { # note PEER WORKLOAD COMMAND...: runs it, keeps its JSON line, or says that there is none
  local peer=$1 workload=$2 line; shift 2
  line=$(timeout 90 "$@" 2>"$scratch/stderr" </dev/null | grep '^{' | tail -n 1) || true
  if [ -z "$line" ]; then
    line="{\"peer\":\"$peer\",\"workload\":\"$workload\",\"failed\":true}"
    { echo "FAILED: $peer $workload"; tail -n 5 "$scratch/stderr"; } >&2
  fi
  printf '%s\n' "$line" >>"$out"
}

: >"$out"
for round in $(seq "$rounds"); do
  for workload in "${workloads[@]}"; do
    echo "round $round: $workload" >&2
    # The lock of the peers' own script: two runs at once would measure each other.
    exec 9>"$scratch/cpu.lock"
    flock 9
    note otava "$workload" "$ours" --alone --json --scale "$scale" "$workload"
    # A workload of our own.
    if [ "$workload" != flood ]; then
      for peer in $only; do
        part=$(awk -v a="$scale" -v b="$(share "$peer" "$workload")" 'BEGIN { printf "%.6f", a * b }')
        note "$peer" "$workload" bash -c 'run_peer "$@"' run_peer "$peer" "$workload" "$part"
      done
    fi
    exec 9>&-
  done
done
python3 scripts/bench-table.py "$out"
