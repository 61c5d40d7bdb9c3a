#!/usr/bin/env bash
# Fuzzes every decoder of bytes from outside, with libFuzzer and AddressSanitizer, two at a time on two processors.
#   scripts/fuzz.sh [SECONDS] [TARGET..]     for example: scripts/fuzz.sh 60 frame payload
# SECONDS are for each target, 60 by default; without names all of fuzz/fuzz_targets/decoders.rs run. The stable
# compiler does it with RUSTC_BOOTSTRAP=1; needs x86_64 Linux and a C++ compiler, and no cargo-fuzz. Seeds lie in
# fuzz/seeds (tests/decoders.rs writes them from the golden bytes), what is found on the way in target/fuzz/corpus. An
# input that fails is kept in target/fuzz/artifacts, and is run again by
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
seconds=${1:-60}
shift || true
case $seconds in
  *[!0-9]*)
    # libFuzzer takes anything else for no limit.
    echo "SECONDS must be a whole number, not $seconds" >&2
    exit 2 ;;
esac
if ! fetched=$(cargo fetch --locked --manifest-path fuzz/Cargo.toml --target "$target" 2>&1); then
  case $fetched in
    *--locked*)
      echo "fuzz/Cargo.lock does not fit the crates: run cargo fetch --manifest-path fuzz/Cargo.toml" >&2
      exit 1 ;;
  esac
  skip "libfuzzer-sys cannot be fetched"
fi

# The flags of cargo-fuzz: coverage by edges, and compared values shown to the fuzzer; fuzz/rustc.sh says for which crates.
export FUZZ_FLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares"
export RUSTC_WRAPPER=$PWD/fuzz/rustc.sh RUSTFLAGS="-Zsanitizer=address"
export RUSTC_BOOTSTRAP=1 RUST_BACKTRACE=0 CARGO_TARGET_DIR=target/fuzz
program=target/fuzz/$target/release/decoders
[ -x "$program" ] || echo "building the targets, which takes minutes the first time" >&2
from=$SECONDS
nice -n 5 cargo build --locked --quiet --release --manifest-path fuzz/Cargo.toml --target "$target"
echo "built in $((SECONDS - from)) s"

options=(-dict=fuzz/wire.dict -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=256 -max_len=16384 -verbosity=0
  -print_final_stats=1)
if [ "$seconds" = 0 ]; then
  FUZZ_TARGET=$1 "$program" "${options[@]}" "${@:2}"
  exit
fi

fuzz() { # fuzz TARGET: a line of what came of it
  local corpus=target/fuzz/corpus/$1 artifacts=target/fuzz/artifacts/$1 log
  mkdir -p "$corpus" "$artifacts"
  log=$(mktemp)
  if FUZZ_TARGET=$1 "$program" "${options[@]}" -max_total_time="$seconds" -artifact_prefix="$artifacts/" \
    "$corpus" "fuzz/seeds/$1" >"$log" 2>&1; then
    echo "$1: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs in $seconds s, nothing found," \
      "$(sed -n 's/^stat::peak_rss_mb: *//p' "$log") MiB at most"
    rm -f "$log"
    return
  fi
  tail -n 40 "$log"
  rm -f "$log"
  echo "$1: FAILED, the input is in $artifacts"
  return 1
}

if [ $# -gt 0 ]; then names=("$@"); else mapfile -t names < <("$program"); fi
failed=0
for index in "${!names[@]}"; do
  # Each but the first waits until one of those that run has ended.
  if [ "$index" -ge "$(nproc)" ]; then wait -n || failed=1; fi
  fuzz "${names[index]}" &
done
for _ in $(seq "$(($(nproc) < ${#names[@]} ? $(nproc) : ${#names[@]}))"); do wait -n || failed=1; done
exit "$failed"
