#!/usr/bin/env python3
"""Plots what `cargo bench --bench attention -- --json` printed and result files of benches/peers.py: one picture a device.

    python3 benches/plot.py [--out DIR] FILE...

Each group of bars is a shape, each bar the rate at which a library read the KV cache there; the line is the rate of a
kernel that only reads. Files of one device go into one picture, DIR/DEVICE.svg. Needs matplotlib.
"""

import argparse
import json
import re
import sys
from collections import defaultdict
from pathlib import Path


def rows_of(file):
    """(device, row) of a file: a report of peers.py, or our own rows, one JSON object a line."""
    text = Path(file).read_text()
    try:
        report = json.loads(text)
    except json.JSONDecodeError:
        report = {}
    if "rows" in report:
        yield from ((report.get("device") or "no device", row) for row in report["rows"])
    else:
        for line in filter(str.strip, text.splitlines()):
            row = json.loads(line)
            yield row["device"], row


def collect(files):
    """device -> case -> peer -> GB/s."""
    rates = defaultdict(lambda: defaultdict(dict))
    for file in files:
        for device, row in rows_of(file):
            if "gb_per_s" in row:
                rates[device][row["case"]][row["peer"]] = row["gb_per_s"]
            if "read_ceiling_gb_per_s" in row:
                rates[device][row["case"]]["read ceiling"] = row["read_ceiling_gb_per_s"]
    return rates


def plot(device, cases, directory):
    import matplotlib
    matplotlib.use("svg")
    from matplotlib import pyplot

    peers = list(dict.fromkeys(peer for rates in cases.values() for peer in rates if "ceiling" not in peer))
    peers.sort(key=lambda peer: peer != "pagedptx")
    figure, axes = pyplot.subplots(figsize=(10, 1 + 0.18 * len(cases) * (len(peers) + 1)), layout="constrained")
    height = 1 / (len(peers) + 1)
    for group, rates in enumerate(cases.values()):
        for index, peer in enumerate(peers):
            if peer in rates:
                axes.barh(group + index * height, rates[peer], height, color=f"C{index}")
        ceiling = max((rate for peer, rate in rates.items() if "ceiling" in peer), default=None)
        if ceiling:
            axes.plot([ceiling, ceiling], [group - height / 2, group + 1 - 1.5 * height], color="black")
    for index, peer in enumerate(peers):
        axes.barh(0, 0, color=f"C{index}", label=peer)
    axes.set_yticks([group + (len(peers) - 1) * height / 2 for group in range(len(cases))], list(cases))
    axes.invert_yaxis()
    axes.set_xlabel("KV cache read, GB/s (line: a kernel that only reads)")
    axes.set_title(device)
    axes.legend(fontsize="small")
    path = Path(directory) / (re.sub(r"[^A-Za-z0-9]+", "-", device).strip("-").lower() + ".svg")
    figure.savefig(path)
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=Path(__file__).with_name("results"))
    parser.add_argument("files", nargs="+")
    options = parser.parse_args()
    rates = collect(options.files)
    if not rates:
        print("no rates in these files: nothing was timed")
        return 1
    for device, cases in rates.items():
        print(plot(device, cases, options.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
