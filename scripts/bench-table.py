#!/usr/bin/env python3
"""Prints how our local actors stand beside other libraries, from lines of scripts/bench-peers.sh.

  scripts/bench-table.py [FILE]      default: target/bench/actors.jsonl

Medians over the rounds. Bare channels and the prototypes on them are no actor libraries: they stand in a table of
their own and are never the best peer. Ends with status 1 when a target is missed or a run of ours failed.
"""
import collections
import json
import statistics
import sys

OURS = "otava"
NO_PEERS = ("tokio-", "flume", "kanal", "async-channel", "proto-")
# Our speed over that of the best peer in the same run.
RATIOS = {
    "pingpong": 2.5, "tell": 2.5, "fanin8": 2.0, "counting": 3.0, "ring": 4.0,
    "forkjoin": 3.0, "big": 2.0, "ask_seq": 1.5, "ask_100": 2.0,
}
# Bounds on other fields: the less, the better.
BOUNDS = {"idle": ("bytes_per_actor", 250, "B"), "flood": ("p99_us", 5000, "us")}


def millions(per_sec):
    return f"{per_sec / 1e6:.2f}" if per_sec >= 1e5 else f"{per_sec / 1e6:.4f}"


def main():
    path = sys.argv[1] if len(sys.argv) > 1 else "target/bench/actors.jsonl"
    runs = collections.defaultdict(list)
    failed, workloads, names = [], [], []
    for line in open(path, encoding="utf-8"):
        run = json.loads(line)
        name, workload = run["peer"], run["workload"]
        if workload not in workloads:
            workloads.append(workload)
        if name not in names:
            names.append(name)
        if run.get("failed"):
            failed.append(f"{name} {workload}")
        else:
            runs[name, workload].append(run)

    def median(name, workload):
        field = BOUNDS[workload][0] if workload in BOUNDS else "per_sec"
        found = [run[field] for run in runs[name, workload] if field in run]
        return statistics.median(found) if found else None

    def spread(name, workload):
        found = [run["per_sec"] for run in runs[name, workload]]
        return f"±{(max(found) - min(found)) / statistics.median(found) * 50:.0f} %" if len(found) > 1 else ""

    peers = [name for name in names if name != OURS and not name.startswith(NO_PEERS)]
    floors = [name for name in names if name.startswith(NO_PEERS)]
    rounds = max((len(found) for found in runs.values()), default=0)
    print(f"Medians of {rounds} round(s), million a second where nothing else is said.\n")
    print("| workload | otava | spread | best peer | | ratio | target | |\n|---|---|---|---|---|---|---|---|")
    missed = 0
    for workload in workloads:
        mine = median(OURS, workload)
        theirs = [(median(peer, workload), peer) for peer in peers]
        theirs = [pair for pair in theirs if pair[0] is not None]
        if workload in BOUNDS:
            _, bound, unit = BOUNDS[workload]
            best = min(theirs, default=(None, ""))
            verdict = mine is not None and mine <= bound
            target, show = f"<= {bound} {unit}", lambda value, unit=unit: f"{value:.0f} {unit}"
        else:
            best = max(theirs, default=(None, ""))
            target, show = f">= {RATIOS[workload]} x", millions
            verdict = mine is not None and best[0] is not None and mine / best[0] >= RATIOS[workload]
        compared = mine is not None and best[0] is not None
        word = "ok" if verdict else "NOT" if compared or workload in BOUNDS else "no peer"
        missed += word == "NOT"
        print(
            f"| {workload} | {show(mine) if mine is not None else 'failed'} | {spread(OURS, workload)} "
            f"| {show(best[0]) if best[0] is not None else '-'} | {best[1]} "
            f"| {f'{mine / best[0]:.2f}' if compared else '-'} | {target} | {word} |"
        )

    def table(title, rows):
        if not rows:
            return
        print(f"\n{title}\n\n| | " + " | ".join(columns) + " |\n|" + "---|" * (len(columns) + 1))
        for name in rows:
            cells = []
            for workload in columns:
                value = median(name, workload)
                show = (lambda v: f"{v:.0f} B") if workload in BOUNDS else millions
                cells.append("-" if value is None else show(value))
            print(f"| {name} | " + " | ".join(cells) + " |")

    columns = [w for w in workloads if w != "flood"]
    table("Floors and prototypes, no peers: bare channels, and queues without supervision or bounds.", floors)
    table("All peers.", [OURS, *peers])
    if failed:
        print("\nFailed: " + ", ".join(failed))
    return 1 if missed or any(name.startswith(f"{OURS} ") for name in failed) else 0


sys.exit(main())
