#!/usr/bin/env python3
"""Times other libraries' decode attention over a paged KV cache on the shapes of benches/shapes.json.

    python3 benches/peers.py [--ours benches/results/X.jsonl] [--json OUT] [--only NAME] [--smoke]

A peer is measured if it is installed and takes the shape; what is not is shown with the reason. All of a shape's
peers read pools that are rotated until their bytes exceed 4 times the L2 cache, after a warm-up, and the median of
many runs counts: on the device by events, each call on its own and, without gaps between launches and without the host's
time, in a captured graph of one call for each rotation (which the ratios take); for JAX by the clock over a batch of calls. Every result is compared with
dense attention first; a peer that is wrong is not timed. --ours takes what `cargo bench --bench attention -- --json`
printed on the GPU and makes the ratios relative to it; else they are relative to the fastest peer. --smoke runs tiny shapes on the
CPU with whatever is installed, checks the results and times nothing.

Checked by --smoke with PyTorch 2.15 and JAX 0.10, on an H100 with PyTorch 2.11 and FlashInfer 0.7.2; flash-attn is called as its documentation says.
"""

import argparse
import importlib
import importlib.metadata
import json
import math
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

RUNS = 100
WARM_UP = 10


class Skip(Exception):
    """A peer that cannot do a shape, with the reason."""


@dataclass(frozen=True)
class Case:
    seqs: int
    len: int
    q_heads: int
    kv_heads: int
    head_dim: int
    block_size: int
    dtype: str

    @property
    def name(self):
        return (f"{self.dtype} {self.seqs}x{self.len} q{self.q_heads} kv{self.kv_heads} "
                f"d{self.head_dim} b{self.block_size}")

    @property
    def blocks_per_seq(self):
        return -(-self.len // self.block_size)

    @property
    def num_blocks(self):
        return self.seqs * self.blocks_per_seq

    @property
    def kv_bytes(self):
        """Bytes of K and V that a step has to read."""
        return 2 * self.seqs * self.len * self.kv_heads * self.head_dim * (4 if self.dtype == "f32" else 2)

    @property
    def scale(self):
        return 1 / math.sqrt(self.head_dim)

    def tolerance(self):
        """Of results near 1: half a unit in the last place of the output, and as much again for rounded weights."""
        return {"f32": 1e-4, "f16": 4e-3, "bf16": 3e-2}[self.dtype]


def module(name):
    """The module, or the reason why not."""
    try:
        return importlib.import_module(name)
    except Exception as error:  # an installed package may fail in any way when it is loaded
        raise Skip(f"{name} is not there ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})")


# ---- What the torch peers share


class TorchData:
    """Queries, and as many pools and tables as the cold cache needs, with blocks in random order."""

    def __init__(self, torch, case, device, rotations):
        self.torch, self.case, self.device = torch, case, device
        self.dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[case.dtype]
        generator = torch.Generator(device).manual_seed(1)

        def normal(*shape):
            return torch.randn(*shape, generator=generator, device=device, dtype=self.dtype)

        self.q = normal(case.seqs, case.q_heads, case.head_dim)
        pool = (case.num_blocks, case.block_size, case.kv_heads, case.head_dim)
        self.pools, self.tables = [], []
        for rotation in range(rotations):
            order = torch.randperm(case.num_blocks, generator=torch.Generator().manual_seed(rotation))
            table = order.to(torch.int32).view(case.seqs, case.blocks_per_seq)
            self.pools.append((normal(*pool), normal(*pool)))
            self.tables.append(table.to(device))
        self.lens = torch.full((case.seqs,), case.len, dtype=torch.int32, device=device)

    def gather(self, cache, table):
        """[num_seqs, num_kv_heads, len, head_dim] of a pool."""
        tokens = cache[table.long()].flatten(1, 2)[:, : self.case.len]
        return tokens.transpose(1, 2)

    def reference(self, seq=0):
        """Dense attention in f32 of one sequence, on the first pool: [num_q_heads, head_dim]."""
        torch, case = self.torch, self.case
        table = self.tables[0][seq : seq + 1]
        k, v = (self.gather(cache, table)[0].float() for cache in self.pools[0])
        q = self.q[seq].float().view(case.kv_heads, -1, case.head_dim)
        weights = torch.softmax(q @ k.transpose(1, 2) * case.scale, -1)
        return (weights @ v).view(case.q_heads, case.head_dim)


def sdpa(data, gathered):
    """PyTorch's scaled_dot_product_attention, on K and V gathered in the call or ahead of it."""
    from torch.nn.functional import scaled_dot_product_attention
    case = data.case
    q = data.q.unsqueeze(2)
    ahead = [[data.gather(cache, table).contiguous() for cache in pool]
             for pool, table in zip(data.pools, data.tables)] if gathered else None

    def run(i):
        k, v = ahead[i] if gathered else (data.gather(cache, data.tables[i]) for cache in data.pools[i])
        return scaled_dot_product_attention(q, k, v, scale=case.scale, enable_gqa=True).squeeze(2)

    return run


def flex(data):
    """FlexAttention on the paged form of its block mask."""
    torch, case = data.torch, data.case
    flex_attention = module("torch.nn.attention.flex_attention")
    paged_attention = module("torch.nn.attention.experimental._paged_attention")
    attend = torch.compile(flex_attention.flex_attention, dynamic=False)
    slots = case.num_blocks * case.block_size
    q = data.q.unsqueeze(2)
    steps = []
    for (k, v), table in zip(data.pools, data.tables):
        paged = paged_attention.PagedAttention(case.num_blocks, case.block_size, case.seqs, device=data.device)
        paged.page_table[:, : case.blocks_per_seq] = table
        paged.physical_to_logical.scatter_(
            1, table.long(), torch.arange(case.blocks_per_seq, device=data.device).expand(case.seqs, -1).contiguous())
        if hasattr(paged, "seq_lens"):  # some versions compare with it beside the mask
            paged.seq_lens[:] = case.len
        paged.capacity[:] = case.blocks_per_seq * case.block_size
        length = case.len
        logical = flex_attention.create_block_mask(
            lambda b, h, q_idx, kv_idx: kv_idx < length, case.seqs, None, 1, case.blocks_per_seq * case.block_size,
            device=data.device, BLOCK_SIZE=(1, case.block_size))
        mask = paged.convert_logical_block_mask(logical)
        # [1, num_kv_heads, slots, head_dim], as views of the pool
        k, v = (cache.view(1, slots, case.kv_heads, case.head_dim).transpose(1, 2) for cache in (k, v))
        steps.append((k.expand(case.seqs, -1, -1, -1), v.expand(case.seqs, -1, -1, -1), mask))

    def run(i):
        k, v, mask = steps[i]
        return attend(q, k, v, block_mask=mask, scale=case.scale, enable_gqa=True).squeeze(2)

    return run


def flashinfer(data, tensor_cores):
    """FlashInfer's paged decode; its host plan is made ahead and not timed."""
    torch, case = data.torch, data.case
    library = module("flashinfer")
    indptr = torch.arange(case.seqs + 1, dtype=torch.int32) * case.blocks_per_seq
    last = torch.full((case.seqs,), (case.len - 1) % case.block_size + 1, dtype=torch.int32)
    steps = []
    for (k, v), table in zip(data.pools, data.tables):
        workspace = torch.zeros(128 << 20, dtype=torch.uint8, device=data.device)
        wrapper = library.BatchDecodeWithPagedKVCacheWrapper(workspace, "NHD", use_tensor_cores=tensor_cores)
        wrapper.plan(indptr, table.flatten(), last, case.q_heads, case.kv_heads, case.head_dim, case.block_size,
                     q_data_type=data.dtype, kv_data_type=data.dtype, sm_scale=case.scale)
        steps.append((wrapper, (k, v)))
    return lambda i: steps[i][0].run(data.q, steps[i][1])


def xqa(data):
    """TensorRT-LLM's XQA, as FlashInfer calls it; it needs no plan."""
    torch, case = data.torch, data.case
    library = module("flashinfer")
    workspace = torch.zeros(128 << 20, dtype=torch.uint8, device=data.device)
    return lambda i: library.decode.trtllm_batch_decode_with_kv_cache(
        data.q, data.pools[i], workspace, data.tables[i], data.lens, case.blocks_per_seq * case.block_size,
        bmm1_scale=case.scale, bmm2_scale=1.0, kv_layout="NHD", backend="xqa")


def flash_attn(data):
    """flash-attn's decode over a block table."""
    case = data.case
    library = module("flash_attn")
    if case.block_size % 256:
        raise Skip(f"blocks of {case.block_size}, a multiple of 256 is needed")
    q = data.q.unsqueeze(1)
    return lambda i: library.flash_attn_with_kvcache(
        q, *data.pools[i], cache_seqlens=data.lens, block_table=data.tables[i], softmax_scale=case.scale,
        causal=True).squeeze(1)


TORCH_PEERS = {
    "PyTorch SDPA, gathers": lambda data: sdpa(data, False),
    "PyTorch SDPA, gathered": lambda data: sdpa(data, True),
    "FlexAttention, paged": flex,
    "FlashInfer": lambda data: flashinfer(data, False),
    "FlashInfer, tensor cores": lambda data: flashinfer(data, True),
    "FlashInfer, XQA": xqa,
    "flash-attn": flash_attn,
}
JAX_PEERS = ["JAX Pallas"]


def run_torch(case, only, device):
    """Rows of all torch peers on one case."""
    torch = module("torch")
    on_gpu = device == "cuda"
    if on_gpu and not torch.cuda.is_available():
        raise Skip("PyTorch sees no CUDA device")
    rotations = 1
    if on_gpu:
        l2 = torch.cuda.get_device_properties(0).L2_cache_size
        rotations = max(1, -(-4 * l2 // case.kv_bytes))
    data = TorchData(torch, case, device, rotations)
    expected = data.reference()
    for name, make in TORCH_PEERS.items():
        if only and only.lower() not in name.lower():
            continue
        try:
            run = make(data)
            got = run(0)[0].float()
            error = (got - expected).abs().max().item()
            if not error <= case.tolerance():
                raise Skip(f"wrong: differs by {error:.2e}")
            times = torch_times(torch, run, rotations) if on_gpu else {}
            yield {"peer": name, "error": error, **times}
        except Skip as reason:
            yield {"peer": name, "skipped": str(reason)}
        except Exception as error:  # whatever a peer raises for a shape that it does not take
            yield {"peer": name, "skipped": f"{type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''}"}
    if on_gpu and not only:
        yield {"peer": "read ceiling (torch.sum)", **torch_ceiling(torch, data)}


def torch_times(torch, run, rotations):
    for i in range(WARM_UP):
        run(i % rotations)
    torch.cuda.synchronize()
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(RUNS)]
    host = []
    for i, (start, end) in enumerate(events):
        start.record()
        before = time.perf_counter()
        run(i % rotations)
        host.append(time.perf_counter() - before)
        end.record()
    torch.cuda.synchronize()
    device = [1e3 * start.elapsed_time(end) for start, end in events]
    times = {"median_us": statistics.median(device), "host_us": 1e6 * statistics.median(host)}
    try:
        times["in_graph_us"] = in_graph(torch, run, rotations)
    except Exception as error:  # not every peer can be captured
        times["no_graph"] = type(error).__name__
    return times


def in_graph(torch, run, rotations):
    """Microseconds of a call among the calls of a captured graph, one for each rotation."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(rotations):
            run(i)
    replays = []
    for i in range(WARM_UP + RUNS // 4):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        replays.append((start, end))
    torch.cuda.synchronize()
    return statistics.median(1e3 * start.elapsed_time(end) for start, end in replays[WARM_UP:]) / rotations


def torch_ceiling(torch, data):
    """Reads the same bytes and does next to nothing with them."""
    words = [[cache.view(torch.int32).flatten() for cache in pool] for pool in data.pools]
    return torch_times(torch, lambda i: [w.sum() for w in words[i]], len(words))


def run_jax(case, only, device):
    """Rows of the JAX peer on one case."""
    name = JAX_PEERS[0]
    if only and only.lower() not in name.lower():
        return
    jax = module("jax")
    on_gpu = device == "cuda"
    if on_gpu and jax.default_backend() != "gpu":
        raise Skip(f"JAX runs on {jax.default_backend()}")
    paged_attention = module("jax.experimental.pallas.ops.gpu.paged_attention").paged_attention
    jnp = jax.numpy
    dtype = {"f32": jnp.float32, "f16": jnp.float16, "bf16": jnp.bfloat16}[case.dtype]
    keys = iter(jax.random.split(jax.random.key(1), 8))
    q = jax.random.normal(next(keys), (case.seqs, case.q_heads, case.head_dim), dtype)
    # Its pages lie [num_kv_heads, num_blocks, block_size, head_dim].
    pool = (case.kv_heads, case.num_blocks, case.block_size, case.head_dim)
    k, v = (jax.random.normal(next(keys), pool, dtype) for _ in range(2))
    table = jax.random.permutation(next(keys), case.num_blocks).astype(jnp.int32)
    table = table.reshape(case.seqs, case.blocks_per_seq)
    lens = jnp.full((case.seqs,), case.len, jnp.int32)
    splits = math.gcd(case.blocks_per_seq, 16)
    try:
        def run():
            return paged_attention(q * dtype(case.scale), k, v, table, lens, k_splits=splits,
                                   pages_per_compute_block=math.gcd(case.blocks_per_seq // splits, 8),
                                   interpret=not on_gpu)

        got = run()[0].astype(jnp.float32)
        k0, v0 = (cache[:, table[0]].reshape(case.kv_heads, -1, case.head_dim)[:, : case.len].astype(jnp.float32)
                  for cache in (k, v))
        grouped = q[0].astype(jnp.float32).reshape(case.kv_heads, -1, case.head_dim)
        weights = jax.nn.softmax(jnp.einsum("hgd,htd->hgt", grouped, k0) * case.scale)
        expected = jnp.einsum("hgt,htd->hgd", weights, v0).reshape(case.q_heads, case.head_dim)
        error = float(jnp.abs(got - expected).max())
        if not error <= case.tolerance():
            raise Skip(f"wrong: differs by {error:.2e}")
        times = {}
        if on_gpu:
            step = jax.jit(run)
            for _ in range(WARM_UP):
                step().block_until_ready()
            batches = []
            for _ in range(5):
                before = time.perf_counter()
                for _ in range(RUNS // 5):
                    last = step()
                last.block_until_ready()
                batches.append((time.perf_counter() - before) / (RUNS // 5))
            times = {"median_us": 1e6 * statistics.median(batches), "by": "clock, warm cache"}
        yield {"peer": name, "error": error, **times}
    except Skip as reason:
        yield {"peer": name, "skipped": str(reason)}
    except Exception as error:
        yield {"peer": name, "skipped": f"{type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''}"}


# ---- All together


def run_case(case, only, device):
    """A row for every peer, measured or not."""
    for names, run in ((list(TORCH_PEERS), run_torch), (JAX_PEERS, run_jax)):
        try:
            yield from run(case, only, device)
        except Skip as reason:
            for name in names:
                if not only or only.lower() in name.lower():
                    yield {"peer": name, "skipped": str(reason)}


def versions():
    found = {}
    for package in ("torch", "flashinfer-python", "flash-attn", "jax", "jaxlib", "triton"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def device_name():
    try:
        torch = module("torch")
        if torch.cuda.is_available():
            return torch.cuda.get_device_name(0)
    except Skip:
        pass
    return None


def best_us(row):
    """The time without gaps where there is one."""
    return row.get("in_graph_us", row["median_us"])


def ratio_table(rows, ours):
    """Lines: a case, then per peer its time, rate and how many times slower than ours (or than the fastest) it is."""
    lines = []
    for case in dict.fromkeys(row["case"] for row in rows):
        lines.append(case + (f"   pagedptx {ours[case]:.1f} us" if case in ours else ""))
        of_case = [row for row in rows if row["case"] == case]
        timed = [best_us(row) for row in of_case if "median_us" in row and "ceiling" not in row["peer"]]
        base = ours.get(case, min(timed, default=None))
        for row in of_case:
            if "skipped" in row:
                lines.append(f"    {row['peer']:28} -          {row['skipped']}")
            elif "median_us" in row:
                lines.append(f"    {row['peer']:28} {best_us(row):8.1f} us {row['gb_per_s']:7.0f} GB/s "
                             f"{best_us(row) / base:6.2f}x   (a call on its own {row['median_us']:.1f} us)")
            else:
                lines.append(f"    {row['peer']:28} right, not timed (differs by {row['error']:.1e})")
    return lines


def load_ours(path):
    """Times by case of what our own benchmark printed, one JSON object a line."""
    if not path:
        return {}
    rows = [json.loads(line) for line in Path(path).read_text().splitlines() if line.strip()]
    return {row["case"]: best_us(row) for row in rows if "median_us" in row}


def cases_of(shapes):
    """The cases of a file of shapes; a ragged one, which not every peer takes, is left out."""
    for shape in shapes:
        if "lengths" in shape:
            print(f"left out: {shape['lengths']}, peers are measured on equal lengths", file=sys.stderr)
            continue
        dtypes = shape.pop("dtypes")
        yield from (Case(dtype=dtype, **shape) for dtype in dtypes)


SMOKE = [Case(2, 70, 8, 2, 64, 16, "f32"), Case(1, 256, 4, 4, 64, 256, "f32")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default=Path(__file__).with_name("shapes.json"), type=Path)
    parser.add_argument("--ours", help="result file of our benchmark")
    parser.add_argument("--json", dest="out", help="write the rows to this file (- for standard output)")
    parser.add_argument("--only", help="peers whose name contains this")
    parser.add_argument("--case", default="", help="cases whose name contains this")
    parser.add_argument("--smoke", action="store_true", help="check tiny shapes on the CPU, time nothing")
    options = parser.parse_args()

    cases = SMOKE if options.smoke else list(cases_of(json.loads(options.shapes.read_text())))
    cases = [case for case in cases if options.case in case.name]
    device = "cpu" if options.smoke else "cuda"
    rows = []
    for case in cases:
        for row in run_case(case, options.only, device):
            if "median_us" in row:
                row["gb_per_s"] = case.kv_bytes / best_us(row) / 1e3
            rows.append({"case": case.name, **row})
    report = {"device": device_name(), "versions": versions(), "rows": rows}
    if options.out == "-":
        json.dump(report, sys.stdout, indent=1)
        print()
    else:
        print(f"device: {report['device'] or 'no CUDA device'}   "
              + ", ".join(f"{name} {version}" for name, version in report["versions"].items()))
        print("\n".join(ratio_table(rows, load_ours(options.ours))))
        if options.out:
            Path(options.out).write_text(json.dumps(report, indent=1) + "\n")
    wrong = [row for row in rows if row.get("skipped", "").startswith("wrong")]
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
