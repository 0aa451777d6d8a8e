"""The measurements as tables for people, with the bars that they are held against."""

from __future__ import annotations

BARS = {
    "MONAI, as shipped": 8,
    "MONAI, allocator fixed": 4,
    "nnU-Net, as shipped": 8,
}
INPUT_BYTES = 4  # a voxel in float32, as the other tools take it
LARGEST_SHARE_OF_INPUT = 8
REST_OF_CLICK = 0.10


def markdown(report: dict) -> str:
    """RESULTS.md from what `prosma benchmark --json` writes."""
    machine, clock = report["machine"], report["clock"]
    parts = [
        "# Benchmarks",
        "Written by `prosma benchmark`"
        + (" --full" if report["full"] else "")
        + f" on {report['date']}. Seconds are those of the {clock} clock; every row ran in a process of its own, "
        f"the rows in turn, {report['rounds']} time(s), medians below.",
        f"{machine['processor']} ({', '.join(machine['instructions']) or 'no wide vectors'}), {machine['cores']} cores of "
        f"which {machine['threads']} used, {machine['memory_gb']} GB, {machine['system']}, Python {machine['python']}, "
        f"torch {machine['torch']}, {machine['card'] or 'no CUDA card'}, load {machine['load']} at the beginning.",
    ]
    if not {"avx512_bf16", "amx_bf16"} & {*machine["instructions"]}:
        parts.append("The processor does not compute in bfloat16, so all of this is float32.")
    if forward := report.get("forward"):
        parts += forward_section(forward)
    if whole := report.get("whole"):
        parts += whole_section(whole, clock)
    if growth := report.get("growth"):
        parts += growth_section(growth, clock)
    if click := report.get("click"):
        parts += click_section(click)
    if training := report.get("training"):
        parts += training_section(training)
    return "\n\n".join([*parts, *report.get("notes", [])]) + "\n"


def forward_section(found: dict) -> list[str]:
    parts = [
        "## Forward passes",
        f"Milliseconds of the {found['clock']} clock, {found['rounds']} rounds in turn: medians, and the best. Ratios "
        "and shares are medians of those within a round. As it is: plain PyTorch, with the same setting of the allocator as "
        "the fast one. The peak is that of the faster of a large matrix product and a convolution of 128 to 128 channels. "
        "Its share counts the multiplications of the network as it is; in brackets, those that are really done.",
    ]
    for name, one in found["tables"].items():
        cells = [["network", "way", "ms", "best ms", "over plain", "faster than as it is", "share of the peak"]]
        for row in one["rows"]:
            share = ""
            if row["share_of_peak"] is not None:
                share = f"{100 * row['share_of_peak']:.0f} % ({100 * row['done_share_of_peak']:.0f} %)"
            over = f"{100 * (row['over_plain'] - 1):+.0f} %"
            times = [row["milliseconds"], row["best_milliseconds"]]
            cells.append([row["network"], row["way"], *times, over, f"{row['faster_than_as_it_is']:.2f} x", share])
        size = " x ".join(map(str, one["shape"]))
        parts += [f"{name.upper()}: {size}, float32, peak {one['peak_gflops']} GFLOP/s", table(cells)]
    return parts


def whole_section(rows: list[dict], clock: str) -> list[str]:
    first = rows[0]
    tiles = "All tiles were computed."
    if any(row.get("timed", 0) < row.get("tiles", 0) for row in rows):
        tiles = (
            "The network ran on the first tiles only, in the real run and with its real memory; its time is that of a "
            "mean tile, the first two left out, times the number of tiles, and all else is measured. `--full` computes every "
            "tile."
        )
    cells = [["", "tiles", "network s", "rest s", "total s", "ProSMA is faster by", "bar", "memory / input"]]
    for row in rows:
        if "problem" in row:
            cells.append([row["name"], f"not measured: {row['problem']}", *[""] * 6])
            continue
        ratio = row.get(f"{clock}_ratio")
        bar = BARS.get(row["name"])
        memory = row["peak_bytes"] / (INPUT_BYTES * row["voxels"])
        cells.append(
            [
                row["name"],
                row["tiles"],
                f"{row[f'{clock}_network']:.1f}",
                f"{row[f'{clock}_rest']:.1f}",
                f"{row[f'{clock}_seconds']:.1f}",
                "" if ratio is None or row is first else f"{ratio:.1f} x",
                f"{bar} x" if bar else "",
                f"{memory:.1f} x" + (f" (bar {LARGEST_SHARE_OF_INPUT})" if row is first else ""),
            ]
        )
    return [
        f"## A whole volume of {' x '.join(map(str, first['shape']))}, {first['classes']} classes",
        "A body in air, its box 53 % of the volume; networks of 16, 32, 64, 128 and 256 channels, tiles of 96 x 96 x 96. "
        "ProSMA goes from int16 voxels to labels; the others get normalised float32 and are not charged for that. They "
        "overlap tiles by half, which is nnU-Net's default (MONAI's is a quarter). nnU-Net runs without mirroring. The ratio "
        "is to a run of ours just before. Memory is the peak above that before the run, over the volume's size in float32. "
        f"{tiles}",
        table(cells),
    ]


def growth_section(rows: list[dict], clock: str) -> list[str]:
    cells = [["volume", "classes", "tiles", "network s", "rest s", "microseconds a voxel", "peak of the process"]]
    for row in rows:
        size = " x ".join(map(str, row["shape"]))
        if "problem" in row:
            cells.append([size, row["classes"], f"not measured: {row['problem']}", *[""] * 4])
            continue
        cells.append(
            [
                size,
                row["classes"],
                row["tiles"],
                f"{row[f'{clock}_network']:.1f}",
                f"{row[f'{clock}_rest']:.2f}",
                f"{1e6 * row[f'{clock}_seconds'] / row['voxels']:.2f}",
                f"{row['process_bytes'] / 2**20:.0f} MB",
            ]
        )
    words = "Our own path with its defaults, each row in a process of its own, once."
    return ["## Growth with the volume and the classes", words, table(cells)]


def click_section(click: dict) -> list[str]:
    cells = [["", "wall s", "processor s", "network s", "all else", "bar"]]
    start = click["start"]
    cells.append(["worker ready, model loaded", f"{start['wall']:.2f}", seconds(start["processor"]), "", "", ""])
    for name, title in (("cold", "first job"), ("warm", "second job")):
        row = click[name]
        rest = f"{row['rest_wall']:.2f} s, {100 * row['rest_share']:.0f} %"
        bar = f"{100 * REST_OF_CLICK:.0f} % or 0.5 s" if name == "warm" else ""
        cells.append([title, f"{row['wall']:.2f}", seconds(row["processor"]), f"{row['network_wall']:.2f}", rest, bar])
    size = " x ".join(map(str, click["shape"]))
    return [f"## A click: {size}, {click['classes']} classes, labels and probabilities", table(cells)]


def training_section(tables: list[dict]) -> list[str]:
    parts = [
        "## Training steps",
        "Forward pass, loss, backward pass, clipping and optimiser, on random patches. Ours has its gates' fields on the "
        "decoder's grid, deep supervision and the moving average of the weights; nnU-Net is its trainer's own step on its "
        "plain U-Net, with deep supervision; MONAI's are its AttentionUnet and its UNet with two residual units, AdamW and "
        "DiceCELoss. All have 16, 32, 64, 128 and 256 channels. Every row is a process of its own and ours makes a step "
        "right before each step of another: the ratio is the median of another's time over ours. Seconds are medians. "
        "`prosma train` sets the allocator by itself. Memory is the peak above that before the first step.",
    ]
    for one in tables:
        cells = [["", "ms", "best ms", "over ours", "memory"]]
        for row in one["rows"]:
            if "problem" in row:
                cells.append([row["name"], f"not measured: {row['problem']}", "", "", ""])
                continue
            times = [f"{1e3 * row[name]:.0f}" for name in ("seconds", "best_seconds")]
            cells.append([row["name"], *times, f"{row['ratio']:.2f} x", f"{row['peak_bytes'] / 2**20:.0f} MB"])
        size, threads = " x ".join(map(str, one["shape"])), one["threads"]
        title = f"{size}, {threads} thread{'s' if threads > 1 else ''}, {one['clock']} time, {one['rounds']} rounds"
        parts += [title, table(cells)]
        if epoch := one.get("epoch"):
            parts.append(epoch_line(epoch))
    return parts


def epoch_line(epoch: dict) -> str:
    if "problem" in epoch:
        return f"An epoch with its data was not measured: {epoch['problem']}"
    return (
        f"An epoch of `prosma train` of {epoch['iterations']} steps with its data, patches prepared by one process: "
        f"{epoch['epoch_seconds']:.1f} s, {epoch['ratio']:.2f} times as long as so many steps on a batch that is there."
    )


def seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def table(cells: list[list]) -> str:
    """A Markdown table; the first row is its head."""
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "---|" * len(cells[0]), *lines[1:]])
