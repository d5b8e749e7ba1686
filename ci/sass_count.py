#!/usr/bin/env python3
"""Counts the machine instructions of a kernel's main loop, on its usual path.

usage: ci/sass_count.py [--limit N] [--json] FILE.ptx [TARGET ...]     (targets: sm_80 sm_90 if none is given)

The PTX is assembled by ptxas and disassembled by nvdisasm; the basic blocks form a graph. The main loop is found by what it
does, not by names: of the shortest ways from a block of copies to shared memory (LDGSTS) back to itself, those with matrix
instructions (HMMA) on the way are turns of it, and the shortest of these with the most copies is the usual path. One turn
works on one 16-token tile.
Every instruction on the way counts, NOPs and predicated ones too. Also reported: matrix instructions, loads from shared
memory and copies on that path, and the order of copies, commits and waits, from which the bytes in flight follow.

Exit status 1 if a count passes the limit.
"""
import argparse
import heapq
import json
import os
import re
import subprocess
import sys
import tempfile

INSTRUCTION = re.compile(r"^\s*/\*([0-9a-f]{4,5})\*/\s+(?:(@!?U?P[T0-9]+)\s+)?([A-Z][A-Z0-9_.]*)\s*(.*?);")
LABEL = re.compile(r"^(\.L_x_\d+):")
TARGET = re.compile(r"`\((\.L_x_\d+)\)")
ENDS = ("BRA", "EXIT", "RET", "BRX", "JMP")


def tool(name):
    import nvidia  # the wheels nvidia-cuda-nvcc and nvidia-cuda-nvdisasm

    return os.path.join(list(nvidia.__path__)[0], "cu13", "bin", name)


def disassemble(ptx, target):
    with tempfile.TemporaryDirectory() as folder:
        cubin = os.path.join(folder, "kernel.cubin")
        log = subprocess.run([tool("ptxas"), "-v", "-arch=" + target, ptx, "-o", cubin], check=True, capture_output=True, text=True)
        text = subprocess.run([tool("nvdisasm"), "-c", cubin], check=True, capture_output=True, text=True).stdout
    registers = int(re.search(r"Used (\d+) registers", log.stderr).group(1))
    spills = sum(int(n) for n in re.findall(r"(\d+) bytes spill", log.stderr))
    return text, registers, spills


def blocks_of(text):
    """Basic blocks in order: (labels, instructions as (predicate, opcode, operands))."""
    blocks, labels, body = [], [], []
    for line in text.splitlines():
        label, found = LABEL.match(line), INSTRUCTION.match(line)
        if label:
            if body:
                blocks.append((labels, body))
                labels, body = [], []
            labels.append(label.group(1))
        elif found:
            body.append(found.groups()[1:])
            if found.group(3).split(".")[0] in ENDS:
                blocks.append((labels, body))
                labels, body = [], []
    if body:
        blocks.append((labels, body))
    return blocks


def successors(blocks):
    where = {label: i for i, (labels, _) in enumerate(blocks) for label in labels}
    edges = []
    for i, (_, body) in enumerate(blocks):
        predicate, opcode, operands = body[-1]
        kind, out = opcode.split(".")[0], []
        if kind == "BRA":
            out.append(where[TARGET.search(operands).group(1)])
        conditional = predicate is not None and not predicate.endswith("PT")
        if (kind not in ENDS or conditional or ", " in operands.split("`")[0]) and i + 1 < len(blocks):
            out.append(i + 1)
        edges.append(out)
    return edges


def shortest_cycle(blocks, edges, start):
    """The blocks from `start` back to itself with the fewest instructions, or None."""
    done, queue = set(), [(len(blocks[start][1]), start, (start,))]
    while queue:
        cost, at, path = heapq.heappop(queue)
        for to in edges[at]:
            if to == start:
                return path
            if to not in done:
                done.add(to)
                heapq.heappush(queue, (cost + len(blocks[to][1]), to, path + (to,)))
    return None


def kinds_of(blocks, path):
    return [opcode.split(".")[0] for i in path for _, opcode, _ in blocks[i][1]]


def usual_path(blocks):
    edges, best = successors(blocks), None
    for start, (_, body) in enumerate(blocks):
        if not any(opcode.startswith("LDGSTS") for _, opcode, _ in body):
            continue
        path = shortest_cycle(blocks, edges, start)
        kinds = kinds_of(blocks, path or ())
        if "HMMA" in kinds:
            candidate = (-kinds.count("LDGSTS"), len(kinds), path)
            best = min(best or candidate, candidate)
    return best and best[2]


def count(ptx, target):
    text, registers, spills = disassemble(ptx, target)
    blocks = blocks_of(text)
    path = usual_path(blocks)
    if path is None:
        raise SystemExit(f"{ptx}: no loop with copies to shared memory and matrix instructions on {target}")
    body = [instruction for i in path for instruction in blocks[i][1]]
    kinds = kinds_of(blocks, path)
    events = []
    for _, opcode, operands in body:
        kind = opcode.split(".")[0]
        if kind == "DEPBAR":
            kind = "wait<=" + str(int(operands.split(",")[1], 16))
        if kind in ("LDGSTS", "LDGDEPBAR", "LDSM", "HMMA") or kind.startswith("wait"):
            if events and events[-1][0] == kind:
                events[-1][1] += 1
            else:
                events.append([kind, 1])
    return {
        "file": os.path.basename(ptx), "target": target, "loop": len(body), "registers": registers, "spill_bytes": spills,
        "matrix": kinds.count("HMMA"), "shared_loads": kinds.count("LDSM"), "copies": kinds.count("LDGSTS"),
        "order": " ".join(f"{kind}x{n}" if n > 1 else kind for kind, n in events),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ptx")
    parser.add_argument("targets", nargs="*", default=["sm_80", "sm_90"])
    parser.add_argument("--limit", type=int, help="fail above this many instructions per tile")
    parser.add_argument("--json", action="store_true", help="one JSON object per target")
    options = parser.parse_args()
    worst = 0
    for target in options.targets:
        result = count(options.ptx, target)
        worst = max(worst, result["loop"])
        if options.json:
            print(json.dumps(result))
        else:
            print("{file} {target}: {loop} instructions per tile ({matrix} matrix, {shared_loads} shared loads, {copies} copies), "
                  "{registers} registers, {spill_bytes} bytes spilled\n    order: {order}".format(**result))
    if options.limit is not None and worst > options.limit:
        sys.exit(f"{options.ptx}: {worst} instructions per tile, at most {options.limit} allowed")


if __name__ == "__main__":
    main()
