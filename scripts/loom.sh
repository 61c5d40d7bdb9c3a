#!/usr/bin/env bash
# Runs the loom models of the crate `actor`: mailbox, token, senders' line, watch, ask.
#   scripts/loom.sh [NAME]     for example: scripts/loom.sh parking
# A model that calls `exhaustive` is searched in every interleaving that loom knows (its memory model,
# C11 without load buffering). One that calls `bounded(n, ..)` is searched up to n preemptions. Bounded are:
#   ask, watch:  none
#   cell:        an_abandoned_actor_that_is_woken (3)
#   mailbox:     a_block_behind_the_own_place (3), two_producers_beside_the_consumer (1), one_of_two_wakes_an_idle_actor (4),
#                closing_accepts_or_refuses (2), news_is_not_lost_and_keeps_its_place (2),
#                a_sender_in_line_does_not_miss_the_room (2), a_sender_that_goes_away (3)
# All others are exhaustive.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export RUSTFLAGS="--cfg otava_loom" CARGO_TARGET_DIR=target/loom RUST_BACKTRACE=0
# What the models bound themselves is not to be bounded from outside.
unset LOOM_MAX_PREEMPTIONS LOOM_MAX_BRANCHES LOOM_MAX_PERMUTATIONS LOOM_MAX_DURATION
cargo test --locked -p otava-actor --lib --release "${1:-loom_models}"
