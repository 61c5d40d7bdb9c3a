#!/usr/bin/env python3
"""Prints how our remote messages stand beside other libraries, from lines of scripts/bench-remote-peers.sh.

  scripts/bench-remote-table.py [FILE]      default: target/bench/remote.jsonl

Medians over the rounds. Ends with status 1 when a target is missed or a run of ours failed.
"""
import collections
import json
import statistics
import sys

OURS, FLOOR = "otava", "quinn-floor"
# Bare transports: no actors, no peers.
NO_PEERS = (FLOOR, "tcp", "udp", "quic")
MIB_MAX = 64


def main():
    path = sys.argv[1] if len(sys.argv) > 1 else "target/bench/remote.jsonl"
    runs, failed = collections.defaultdict(list), False
    for line in open(path, encoding="utf-8"):
        if not line.startswith("{"):
            continue
        try:
            run = json.loads(line)
        except ValueError:
            continue  # What a peer that did not start has said.
        if run.get("failed"):
            failed = True
        else:
            runs[run["peer"], run["workload"]].append(run)

    def median(name, workload, field="per_sec"):
        found = [run[field] for run in runs.get((name, workload), []) if field in run]
        return statistics.median(found) if found else None

    def show(value, unit=""):
        return "-" if value is None else f"{value:,.0f}{unit}"

    names = list(dict.fromkeys(name for name, _ in runs))
    print("| who | tell 100 B, messages/s | round trip p50, us | p99, us | memory of client and server, MiB |\n|---|---|---|---|---|")
    for name in names:
        tell, trip = "remote_tell100", "remote_rtt"
        mib = [median(name, tell, field) for field in ("peak_kb", "server_peak_kb")]
        cells = [show(median(name, tell)), show(median(name, trip, "p50_us")), show(median(name, trip, "p99_us")),
                 " ".join(show(kb / 1024) for kb in mib if kb)]
        if any(cell not in ("-", "") for cell in cells[:3]):
            print(f"| {name} | " + " | ".join(cells) + " |")

    missed = 0

    def target(what, value, holds, bound):
        nonlocal missed
        if value is None:
            return print(f"| {what} | - | {bound} | not measured |")
        missed += not holds
        return print(f"| {what} | {value:,.2f} | {bound} | {'ok' if holds else 'NOT'} |")

    def ratio(ours, theirs):
        return ours / theirs if ours and theirs else None

    print("\n| target | measured | bound | |\n|---|---|---|---|")
    tell = median(OURS, "remote_tell100")
    target("tell, million/s", tell and tell / 1e6, (tell or 0) >= 2e6, ">= 2")
    floor = ratio(tell, median(FLOOR, "remote_tell100"))
    print(f"| tell over the floor of quinn | {floor:.2f} | | |" if floor else "| tell over the floor | - | | |")
    secure = [name for name in names if "tls" in name and not name.startswith(NO_PEERS)]
    best = max((median(name, "remote_tell100") or 0 for name in secure), default=0)
    over = ratio(tell, best)
    target("tell over the best peer with TLS", over, (over or 0) >= 5, ">= 5")
    for side, field in (("client", "peak_kb"), ("server", "server_peak_kb")):
        kib = median(OURS, "remote_tell100", field)
        target(f"memory of the {side}, MiB", kib and kib / 1024, (kib or 0) <= MIB_MAX * 1024, f"<= {MIB_MAX}")
    for part, bound in (("p50_us", 1.3), ("p99_us", 2)):
        over = ratio(median(OURS, "remote_rtt", part), median(FLOOR, "remote_rtt", part))
        target(f"round trip {part[:3]} over the floor", over, over and over <= bound, f"<= {bound}")
    asks = median(OURS, "remote_ask_1000")
    target("1,000 x 1,000 asks, thousand/s", asks and asks / 1e3, (asks or 0) >= 3e5, ">= 300")
    ping = "remote_large_beside_ping"
    over = ratio(median(OURS, ping, "p99_us"), median(OURS, ping, "quiet_p99_us"))
    target("ping p99 beside 64 MiB over quiet", over, over and over <= 3, "<= 3")
    if failed:
        print("\nA run of ours failed.")
    return 1 if missed or failed else 0


sys.exit(main())
