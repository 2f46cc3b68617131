"""Training on several GPUs, on paper: efficiency from measured parts. Nothing here ran on several GPUs.

    python benches/ranks.py

prints the tables of docs/several-gpus.md. A step of W ranks with n rows each takes what one GPU takes for n
rows, more for the weight gradient if it has too few blocks for the GPU, and two exchanges after each other, of
which none is hidden behind the other work:

- slices of the gradient go all to all: a rank sends (W - 1) / W of the gradient in W - 1 messages;
- sums of slices are gathered: the same bytes, round a ring.

The terms of the loss, 16 bytes a tile of 128 rows, are gathered with them.

A part of a rank's shards could be sent while it sweeps the others. Each message would be of a whole gradient all
the same, also the last one, which follows the last sweep: so no step would end earlier.
"""

import math

# Measured: `amatch bench WORKLOAD --device cuda --precision bf16 --rows N` on one H100 80GB HBM3
# (benches/runs/2026-11-27-h100.md). Rows of each kind, of which a step has three, and milliseconds a
# step. Between them and beyond, times are taken to be linear in the rows.
STEPS = {"hydrogen": ((1_000, 0.134), (65_536, 2.29)), "wide": ((2_048, 0.603), (65_536, 6.31))}

# Inputs, hidden layers and outputs of the networks of these workloads (src/cli/workloads.rs): the
# quadratic head has as many outputs as there are dimensions.
NETWORKS = {"hydrogen": (3 + 1, [256] * 4, 3), "wide": (50 + 1, [512] * 4, 1)}

# Share of the weight gradient in a step of hydrogen (`weight_grad` in the table of kernels of the same file,
# 65,536 rows of each kind: two launches on interior rows, four on boundary rows); taken for wide too.
OF_WEIGHT_GRADIENT = (2 * 137 + 4 * 88) / 2290

# Its blocks: one for 128 x 128 elements of a layer's gradient and a group of the batch (weight_grad.cuh,
# batch.cuh). So many run at a time; fewer are taken to need longer in proportion, which is the worst case, as a
# block is faster if it has a multiprocessor to itself.
GROUPS, FEW_SHARDS, BLOCKS_AT_ONCE = 16, 8, 2 * 132

# Most shards of a batch.
MAX_SHARDS = 64

# Bytes a second in one direction. NVLink 4: 900 GB/s both ways (NVIDIA H100 Tensor Core GPU
# Architecture), of which NCCL reaches four fifths. InfiniBand NDR, a card of 400 Gb/s for each GPU as in
# a DGX H100: "you should see 46-48 GB/s per NIC" (NVIDIA/nccl-tests, issue 290).
NVLINK, INFINIBAND = 0.8 * 450e9, 46e9

# Seconds that NCCL's own model takes for a start and for each hop of a ring (NVIDIA/nccl, commit
# 01afd20, src/graph/tuning.cc: baseLat, hwLat of rings), by its protocols LL and Simple; LL moves a third
# of the bytes a second, a quarter between machines, where its hops by NVLink take 1.8 times as long.
START = {"LL": 3.6e-6, "Simple": 8.4e-6}
BY_NVLINK = {"LL": 0.47e-6, "Simple": 3.4e-6}
BY_NETWORK = {"LL": 2.7e-6, "Simple": 9.6e-6}

# GPUs of a machine.
OF_MACHINE = 8

# An assumption, as NCCL has no model of messages to all: so many are under way at once.
AT_ONCE = 8


def step(workload, rows):
    """Seconds of a step of one GPU with `rows` rows of each kind."""
    (n0, t0), (n1, t1) = STEPS[workload]
    return (t0 + (rows - n0) * (t1 - t0) / (n1 - n0)) * 1e-3


def gradient_bytes(workload):
    inputs, hidden, outputs = NETWORKS[workload]
    widths = [inputs, *hidden, outputs]
    return 4 * sum((a + 1) * b for a, b in zip(widths, widths[1:]))


def weight_gradient_blocks(workload, ranks, shards):
    inputs, hidden, outputs = NETWORKS[workload]
    tiles = [math.ceil(math.ceil(n / 64) * 64 / 128) for n in (inputs, *hidden, outputs)]
    groups = max(GROUPS // shards, GROUPS // FEW_SHARDS) * shards // ranks
    return groups * sum(a * b for a, b in zip(tiles, tiles[1:]))


def step_of_rank(workload, ranks, shards, rows):
    """Seconds of a step of each of `ranks` GPUs with `rows` rows each, but for what they send."""
    alone, here = (min(weight_gradient_blocks(workload, *of), BLOCKS_AT_ONCE) for of in ((1, FEW_SHARDS), (ranks, shards)))
    return step(workload, rows) * (1 + OF_WEIGHT_GRADIENT * max(alone / here - 1, 0))


def shards_for(ranks):
    """As many shards as leave each rank the blocks of one GPU, if so many are possible."""
    return min(FEW_SHARDS * ranks, MAX_SHARDS)


def gather(ranks, n_bytes):
    """Seconds in which `ranks` GPUs gather `n_bytes` in all round a ring."""
    machines = math.ceil(ranks / OF_MACHINE)
    rate = NVLINK if machines == 1 else INFINIBAND
    times = []
    for protocol in START:
        by_nvlink = BY_NVLINK[protocol] * (1.8 if machines > 1 and protocol == "LL" else 1.0)
        hops = (ranks - machines) * by_nvlink + (machines - 1) * BY_NETWORK[protocol]
        share = {"Simple": 1.0, "LL": 1 / 3 if machines == 1 else 1 / 4}[protocol]
        times.append(START[protocol] + hops + n_bytes * (ranks - 1) / ranks / (rate * share))
    return min(times)


def to_all(ranks, n_bytes):
    """Seconds in which each of `ranks` GPUs sends its own part of `n_bytes` to each other one."""
    neighbors = min(ranks, OF_MACHINE) - 1
    others = ranks - 1 - neighbors
    near = math.ceil(neighbors / AT_ONCE) * BY_NVLINK["Simple"] + n_bytes * neighbors / ranks / NVLINK
    far = math.ceil(others / AT_ONCE) * BY_NETWORK["Simple"] + n_bytes * others / ranks / INFINIBAND
    # Both at the same time, on ways of their own.
    return START["Simple"] + max(near, far)


def exchange(workload, ranks, rows):
    """Seconds of all that ranks send in a step."""
    if ranks == 1:
        return 0.0
    terms = 16 * 3 * math.ceil(rows / 128) * ranks
    n_bytes = gradient_bytes(workload)
    return to_all(ranks, n_bytes) + gather(ranks, n_bytes + terms)


def efficiency(workload, ranks, shards, rows, slower=1.0):
    """Work of a second of each of `ranks` GPUs over that of one alone, with `rows` rows each."""
    together = step_of_rank(workload, ranks, shards, rows) + slower * exchange(workload, ranks, rows)
    return step(workload, rows) / together


def least_batch(workload, ranks, speed_up):
    """Least batch, in rows of each kind, that `ranks` GPUs step through `speed_up` times faster than one."""
    batch = 128 * ranks  # a tile for each
    while batch < 1e9:
        of_rank = batch // ranks
        together = step_of_rank(workload, ranks, shards_for(ranks), of_rank) + exchange(workload, ranks, of_rank)
        if step(workload, batch) >= speed_up * together:
            return batch
        batch = math.ceil(batch * 1.01)
    return None


def table(head, rows):
    print("| " + " | ".join(head) + " |")
    print("|" + " --- |" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def count(n):
    """`n` to two digits."""
    return "never" if n is None else f"{float(f'{n:.2g}'):,.0f}"


def main():
    rows_of = [8_192, 65_536, 524_288]
    table(
        [
            "workload, gradient",
            "rows of each kind a GPU",
            "a step of one GPU",
            "8 GPUs by NVLink, 8 shards",
            "8 GPUs, 64 shards",
            "64 GPUs, 64 shards, InfiniBand too",
        ],
        [
            [
                f"{workload}, {gradient_bytes(workload) / 1e6:.2f} MB",
                f"{rows:,}",
                f"{step(workload, rows) * 1e3:.3g} ms",
                *(
                    f"{efficiency(workload, ranks, shards, rows):.0%} "
                    f"({efficiency(workload, ranks, shards, rows, 2.0):.0%}), "
                    f"{exchange(workload, ranks, rows) * 1e6:.0f} µs"
                    for ranks, shards in ((8, 8), (8, 64), (64, 64))
                ),
            ]
            for workload in STEPS
            for rows in rows_of
        ],
    )
    table(
        ["workload", "GPUs", "faster than one", "half of all that the GPUs could", "nine tenths"],
        [
            [workload, str(ranks), *(count(least_batch(workload, ranks, s)) for s in (1.0, 0.5 * ranks, 0.9 * ranks))]
            for workload in STEPS
            for ranks in (2, 4, 8, 64)
        ],
    )


if __name__ == "__main__":
    main()
