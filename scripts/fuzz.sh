#!/usr/bin/env bash
# Fuzzes every decoder of bytes from outside, with libFuzzer and AddressSanitizer.
#   scripts/fuzz.sh [--if-built] [SECONDS] [TARGET..]     for example: scripts/fuzz.sh 60 frame payload
# SECONDS are for each target, 60 by default; without names all targets of fuzz/fuzz_targets run. The stable
# compiler does it with RUSTC_BOOTSTRAP=1; needs x86_64 Linux and a C++ compiler, and no cargo-fuzz (which works
# too, in fuzz/). Seeds lie in fuzz/seeds (tests/decoders.rs writes them from the golden bytes), what is found on
# the way in target/fuzz/corpus. An input that fails is kept in target/fuzz/artifacts, and is run again by
#   scripts/fuzz.sh 0 TARGET target/fuzz/artifacts/TARGET/crash-..
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

skip() {
  echo "skipped: $1"
  exit 0
}

target=x86_64-unknown-linux-gnu
[ "$(uname -sm)" = "Linux x86_64" ] || skip "fuzzing is set up for x86_64 Linux here, this is $(uname -sm)"
ls "$(rustc --print target-libdir --target "$target")"/librustc*_rt.asan.a >/dev/null 2>&1 ||
  skip "this toolchain has no AddressSanitizer runtime"
command -v c++ >/dev/null || skip "there is no C++ compiler, which libFuzzer is built with"
if [ "${1:-}" = --if-built ]; then
  shift
  [ -x "target/fuzz/$target/release/frame" ] ||
    skip "the targets are not built, which takes minutes: run scripts/fuzz.sh once (tests/decoders.rs tries the same decoders)"
fi
seconds=${1:-60}
shift || true
inputs=()
if [ "$seconds" = 0 ]; then
  names=("$1")
  inputs=("${@:2}")
elif [ $# -gt 0 ]; then
  names=("$@")
else
  mapfile -t names < <(basename -s .rs fuzz/fuzz_targets/*.rs)
fi

if ! fetched=$(cargo fetch --locked --manifest-path fuzz/Cargo.toml --target "$target" 2>&1); then
  case $fetched in
    *--locked*)
      echo "fuzz/Cargo.lock does not fit the crates: run cargo fetch --manifest-path fuzz/Cargo.toml" >&2
      exit 1 ;;
  esac
  skip "libfuzzer-sys cannot be fetched"
fi

# The flags of cargo-fuzz: coverage by edges, and compared values shown to the fuzzer.
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares -Zsanitizer=address -Ccodegen-units=1"
export RUSTC_BOOTSTRAP=1 RUST_BACKTRACE=0 CARGO_TARGET_DIR=target/fuzz
# The first build takes some eight minutes of processor time, measured 2026-11-30: otava-cluster alone two, in
# one piece. Most of it is a chain (otava-actor, -remote, -cluster, -sharding), so two processors do not halve
# it, and on a machine that twenty others use it took an hour.
if [ ! -x "target/fuzz/$target/release/${names[0]}" ]; then
  echo "building the targets, which takes minutes the first time" >&2
fi
nice -n 5 cargo build --locked --quiet --release --manifest-path fuzz/Cargo.toml --target "$target" \
  "${names[@]/#/--bin=}"

failed=()
for name in "${names[@]}"; do
  run=(target/fuzz/$target/release/"$name" -dict=fuzz/wire.dict -timeout=10 -rss_limit_mb=1024
    -malloc_limit_mb=256 -max_len=16384 -verbosity=0 -print_final_stats=1)
  if [ ${#inputs[@]} -gt 0 ]; then
    "${run[@]}" "${inputs[@]}"
    continue
  fi
  corpus=target/fuzz/corpus/$name artifacts=target/fuzz/artifacts/$name
  mkdir -p "$corpus" "$artifacts"
  seeds=()
  if [ -d "fuzz/seeds/$name" ]; then seeds=("fuzz/seeds/$name"); fi
  log=$(mktemp)
  if "${run[@]}" -max_total_time="$seconds" -artifact_prefix="$artifacts/" "$corpus" "${seeds[@]}" \
    >"$log" 2>&1; then
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    memory=$(sed -n 's/^stat::peak_rss_mb: *//p' "$log")
    echo "$name: $runs inputs in $seconds s, nothing found, $memory MiB at most"
  else
    tail -n 40 "$log"
    echo "$name: FAILED, the input is in $artifacts"
    failed+=("$name")
  fi
  rm -f "$log"
done
if [ ${#failed[@]} -gt 0 ]; then
  echo "failed: ${failed[*]}"
  exit 1
fi
