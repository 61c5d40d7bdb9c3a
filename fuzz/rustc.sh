#!/bin/sh
# Compiler wrapper: FUZZ_FLAGS for the crates whose code reads bytes from outside, and for no others: they would take most of
# the time to build, and show the fuzzer branches that no input chooses. What runs on the host, macros too, has no --target.
case " $* " in
  *" --target "*) ;;
  *) exec "$@" ;;
esac
case " $* " in
  *" --crate-name otava_"* | *" --crate-name decoders "* | *" --crate-name bincode "* | *" --crate-name bytes "* | \
    *" --crate-name chitchat "* | *" --crate-name lz4_flex "*)
    # shellcheck disable=SC2086 # these are words
    exec "$@" $FUZZ_FLAGS ;;
esac
exec "$@"
