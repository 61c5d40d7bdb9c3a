#!/usr/bin/env bash
# Every crash state of the embedded journal: each must hold exactly what was acknowledged, or that and the step under way.
# Proves P1 (kill -9, torn and short writes at each call on its files) and P3 (power cuts of ext4 and XFS under load).
# scripts/crash-journal.sh [--short]: a line a sweep with its counts; exit 1 when one has a failure. About 15 minutes, short 2.
# Needs FAULT_TOOLS (killsweep.sh, crashstates.py, powerloss.sh, fsfault.c; default /work/shared/fault-tools), cc, python3 and
# strace; the power cuts on a real file system also need root, mkfs and loop devices. What cannot run says "skipped".
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tools=${FAULT_TOOLS:-/work/shared/fault-tools}
points=120 steps=24 cuts=50 states=0
[ "${1:-}" = --short ] && points=15 steps=12 cuts=4 states=100

for need in "$tools/killsweep.sh" "$tools/crashstates.py" "$tools/fsfault.c"; do
  [ -e "$need" ] || { echo "skipped: no $need (FAULT_TOOLS says where the tools are)"; exit 0; }
done
for need in cc python3 strace; do
  command -v "$need" >/dev/null || { echo "skipped: no $need"; exit 0; }
done

cargo build --locked -q -p otava-persistence --example crash_journal || exit 1
program=$PWD/${CARGO_TARGET_DIR:-target}/debug/examples/crash_journal
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export FSFAULT_LIB=$work/libfsfault.so
cc -shared -fPIC -O2 -o "$FSFAULT_LIB" "$tools/fsfault.c" -ldl || { echo "skipped: the fault library does not compile"; exit 0; }
failed=0
report() { # report NAME STATUS OUTPUT
  printf '%-28s %s\n' "$1" "$(tail -n 1 <<<"$3")"
  [ "$2" -eq 0 ] || { failed=1; grep FAIL <<<"$3" | head -n 3; }
}

# kill -9, errors and half writes at the first, second, third .. call on any file of the journal
data=$work/data
sweep() { # sweep OPERATION ACTION
  local output status=0
  output=$("$tools/killsweep.sh" "$1" "$2" /data/journal.db "$data" "$program write $data $steps" \
    "$program check $data \$(grep -c '^ack ' $data.out)" "$points" 2>&1) || status=$?
  report "killsweep $1 $2" "$status" "$output"
}
sweep write kill
sweep write torn=100
sweep write short=100
sweep write err=ENOSPC
sweep write err=EIO
sweep fsync kill
sweep fsync killafter
sweep fsync err=EIO
sweep rename kill
sweep ftruncate kill
sweep unlink kill

# every state of the files that a kill, a torn write or a power cut could leave
status=0
# Lines beside acknowledgements do not count: the last one is no step.
output=$(python3 "$tools/crashstates.py" --dir "$work/states" --max "$states" --check "$program check {dir} \$((ACKED > $steps ? $steps : ACKED))" \
  -- "$program" write "$work/states" "$steps" 2>&1) || status=$?
report "crashstates" "$status" "$output"

# the same while a file of an older format is brought to the present one
for format in 1 2; do
  status=0
  output=$(python3 "$tools/crashstates.py" --dir "$work/old$format" --max "$states" --check "$program migrated $format {dir} \$ACKED" \
    -- "$program" migrate "persistence/fixtures/v$format/journal.db" "$work/old$format" 2>&1) || status=$?
  report "crashstates, from format $format" "$status" "$output"
done

# power cuts of a real file system, at random moments
for kind in ext4 xfs; do
  name="powerloss $kind"
  if [ "$(id -u)" -ne 0 ]; then echo "$name: skipped, not root"; continue; fi
  if ! command -v "mkfs.$kind" >/dev/null; then echo "$name: skipped, no mkfs.$kind"; continue; fi
  size=64; [ "$kind" = xfs ] && size=320
  if ! "$tools/powerloss.sh" make "$work/$kind.img" "$size" "$kind" "$work/$kind" >/dev/null 2>&1; then
    echo "$name: skipped, no loop device can be mounted"; continue
  fi
  bad=0 acked_all=0
  for cut in $(seq "$cuts"); do
    rm -rf "${work:?}/$kind"/journal.db*
    "$program" write "$work/$kind" 100000 >"$work/out" 2>/dev/null &
    writer=$!
    sleep "0.$((RANDOM % 8 + 1))"
    "$tools/powerloss.sh" cut "$work/$kind"
    wait "$writer"
    "$tools/powerloss.sh" up "$work/$kind"
    acked=$(grep -c '^ack ' "$work/out")
    acked_all=$((acked_all + acked))
    if ! said=$("$program" check "$work/$kind" "$acked" 2>&1); then
      bad=$((bad + 1)); echo "FAIL cut $cut, $acked acknowledged: ${said:0:300}"
    fi
  done
  "$tools/powerloss.sh" drop "$work/$kind"
  printf '%-28s %s\n' "$name" "$cuts cuts, $acked_all acknowledged steps, $bad failed"
  [ "$bad" -eq 0 ] || failed=1
done
exit "$failed"
