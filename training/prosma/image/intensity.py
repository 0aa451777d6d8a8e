"""Intensity rules of `model.json`: the same function prepares voxels for training and for inference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .geometry import ImageError

# Of pictures as fractions, and as whole numbers.
FULL_SCALES = (1, *(2**bits - 1 for bits in (8, 10, 12, 14, 16, 24, 32)))
LEAST_AIR = -200.0  # Hounsfield units: a CT has lower values somewhere
NO_AIR = (
    "The model expects a CT in Hounsfield units, where air is about -1000; here the lowest value is {low:g}. "
    "Choose a CT, or check its rescaling."
)
SAMPLES = 32  # along an axis, to see whether there is air
ALIKE = 1e-5  # difference of values that are alike, times the greatest
STRAY = 0.05  # percent of the voxels at either end that do not make a contrast
LEAST_SHARE = -0.05  # of the model's range: what is lower is no rounding
HUGE = 1e15  # squares of larger numbers do not fit into 32 bits
SAMPLED_VOXELS = 4_000_000  # percentiles of larger channels are taken from evenly spaced voxels


def rule_for(array: np.ndarray, intensity: dict) -> tuple[dict, tuple[str, ...]]:
    """The intensity rule to use for an image `array` (C, ...) as it was read, and notices.

    A rule `range` from 0 to a full scale, such as 255, means shades from black to white. Images with more bits, or with
    fractions from 0 to 1, get its end set to their own white: 1 for fractions, else the smallest full scale that holds
    their greatest value, so that 12 bits in 16 are 12. ImageError for values clearly below black. With the rule `ct` an
    image without air is told of.
    """
    if intensity["rule"] == "ct" and (lowest := lowest_without_air(array)) is not None:
        return intensity, (NO_AIR.format(low=lowest),)
    if intensity["rule"] != "range" or intensity["low"] != 0 or intensity["high"] not in FULL_SCALES:
        return intensity, ()
    black, white = _ends(array)
    if black < LEAST_SHARE * intensity["high"] or (black < LEAST_SHARE and white <= 1 - LEAST_SHARE):
        raise ImageError(
            f"The image's values go from {black:g} to {white:g}, the model knows 0 (black) to {intensity['high']} (white).",
            f"Scale them to 0 to {intensity['high']} and save them so.",
        )
    full = _full_scale(array.dtype, white)
    if full == intensity["high"]:
        return intensity, ()
    notice = (
        f"The image's values go from {black:g} to {white:g}; 0 to {full} were taken as black to white, where the model "
        f"knows 0 to {intensity['high']}."
    )
    return {**intensity, "high": full}, (notice,)


def within_range(values: np.ndarray, array: np.ndarray, intensity: dict) -> np.ndarray:
    """`values` that an image `array` (C, ...) was changed to, kept where a model with the rule `range` takes them: between
    what counts as black and as white in that image. With other rules as they are.
    """
    rule, _ = rule_for(array, intensity)
    return np.clip(values, rule["low"], rule["high"]) if rule["rule"] == "range" else values


def lowest_without_air(array: np.ndarray) -> float | None:
    """The lowest value, seen on a coarse grid, of an image in which nothing is as low as air in a CT; else None."""
    lowest = float(array[tuple(slice(None, None, max(1, size // SAMPLES)) for size in array.shape)].min())
    return lowest if lowest > LEAST_AIR else None


def _ends(array: np.ndarray) -> tuple[float, float]:
    """The lowest and the highest finite value; 0, 0 where there is none."""
    if array.dtype.kind == "f":
        array = array[np.isfinite(array)]
    return (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)


def _full_scale(dtype: np.dtype, white: float) -> int:
    """What stands for white in values of this type, the highest of which is `white`."""
    if dtype.kind == "f" and white <= 1 - LEAST_SHARE:
        return 1
    return next((full for full in FULL_SCALES[1:] if np.floor(white) <= full), FULL_SCALES[-1])


def normalise(array: np.ndarray, intensity: dict, copy: bool = True) -> np.ndarray:
    """`array` (C, ...) after the rule as float32, each channel on its own; in place where `copy` is false and it can.

    Rules: `zscore` (mean 0, standard deviation 1), `clip-zscore` (first clipped to `percentiles`), `ct` (clipped to
    `clip`, then (x - mean) / std with the training set's `mean` and `std`), `range` (`low`..`high` to 0..1, clipped).
    A constant channel becomes 0 under the z-score rules. ValueError for an unknown rule.

    Options of `clip-zscore`: with `foreground`, percentiles, mean and deviation are those of the voxels above the
    channel's lowest value, so that it does not matter how much air (with value 0) is around a head; with `power`, clipped
    values are first scaled to 0..1 and raised to it: below 1 that brings out what lies far from a surface coil.
    """
    result = np.array(array, dtype=np.float32, order="C") if copy else np.ascontiguousarray(array, dtype=np.float32)
    for channel in result:
        _normalise_channel(channel, intensity)
    return result


def _normalise_channel(channel: np.ndarray, intensity: dict) -> None:
    rule = intensity["rule"]
    if rule in ("zscore", "clip-zscore"):
        counted = channel > channel.min() if intensity.get("foreground") else None
        if counted is not None and not counted.any():
            counted = None
        if rule == "clip-zscore":
            _clip(channel, counted, intensity)
        _standardise(channel, counted)
    elif rule == "ct":
        np.clip(channel, *(np.float32(v) for v in intensity["clip"]), out=channel)
        channel -= np.float32(intensity["mean"])
        channel /= np.float32(intensity["std"])
    elif rule == "range":
        low, high = float(intensity["low"]), float(intensity["high"])
        channel -= np.float32(low)
        channel /= np.float32(high - low)
        np.clip(channel, 0, 1, out=channel)
    else:
        raise ValueError(f"Unknown intensity rule: {rule!r}.")


def contrast_notices(array: np.ndarray, names: list[str]) -> list[str]:
    """Notices about channels of an array (C, ...), normalised, in which all but stray voxels are alike."""
    notices = []
    for channel, name in zip(array, names, strict=True):
        values = channel.reshape(-1)
        if _shows_contrast(values):
            continue
        low, high = np.percentile(values[:: max(1, values.size // SAMPLED_VOXELS)], (STRAY, 100 - STRAY))
        if high - low <= ALIKE * max(1.0, abs(high)):
            notices.append(
                f"After the model's intensity rule nothing can be told apart in the channel '{name}': nearly all voxels have "
                "the same value. Check that it is the right image, and that its values are not scaled wrongly."
            )
    return notices


def _shows_contrast(values: np.ndarray) -> bool:
    """Whether every 16th value shows already that not all but stray ones are alike; quick, and often enough."""
    few = values[::16]
    if few.size < 1000:
        return False
    low, high = percentiles(few, (5, 95))  # of all values 0.3 % at least lie at or beyond either
    return bool(high - low > ALIKE * max(1.0, -float(values.min()), float(values.max())))


def _clip(channel: np.ndarray, counted: np.ndarray | None, intensity: dict) -> None:
    """Clips to the percentiles of the counted voxels (None: of all), and raises to a power where the rule asks for it."""
    values = channel.reshape(-1) if counted is None else channel[counted]
    step = max(1, values.size // SAMPLED_VOXELS)
    low, high = percentiles(values[::step], intensity.get("percentiles", (0.5, 99.5))).astype(np.float32)
    np.clip(channel, low, high, out=channel)
    if "power" in intensity and high > low:
        channel -= low
        channel /= high - low
        np.power(channel, np.float32(intensity["power"]), out=channel)


def percentiles(values: np.ndarray, percents: Sequence[float]) -> np.ndarray:
    """Those of (N,) finite values, N > 0, float64: the numbers of numpy, from a sorted array, in a fifth of its time."""
    places = np.asarray(percents, np.float64) / 100 * (values.size - 1)
    low = np.floor(places).astype(np.intp)
    in_order = np.sort(values)
    one, other, share = in_order[low], in_order[np.minimum(low + 1, values.size - 1)], places - low
    step = other - one
    return np.where(share < 0.5, one + step * share, other - step * (1 - share))


def _standardise(channel: np.ndarray, counted: np.ndarray | None) -> None:
    """Mean 0 and standard deviation 1 over the counted voxels (None: over all)."""
    where = True if counted is None else counted
    peak = np.abs(channel).max()
    if peak > HUGE:
        channel /= peak
    mean = channel.mean(dtype=np.float64, where=where)
    channel -= np.float32(mean)
    deviation = np.sqrt(np.square(channel).mean(dtype=np.float64, where=where))
    # Rounding leaves a constant channel with a tiny spread, which must not be blown up to noise.
    if deviation > 1e-6 * max(1e-6, abs(mean)):
        channel /= np.float32(deviation)
    else:
        channel[...] = 0


def pad_to_patch(array: np.ndarray, patch_size) -> tuple[np.ndarray, tuple[slice, ...]]:
    """`array` (C, *spatial), normalised, with 0 on both sides up to `patch_size`; and where its voxels now lie.

    Training and inference pad small images in this same way, because InstanceNorm sees the padding.
    """
    before = [max(0, p - n) // 2 for n, p in zip(array.shape[1:], patch_size, strict=True)]
    inside = tuple(slice(b, b + n) for b, n in zip(before, array.shape[1:], strict=True))
    if any(n < p for n, p in zip(array.shape[1:], patch_size, strict=True)):
        # np.pad takes five times as long.
        padded = np.zeros((len(array), *map(max, array.shape[1:], patch_size)), array.dtype)
        padded[(slice(None), *inside)] = array
        return padded, inside
    return array, inside


def foreground(array: np.ndarray, patch_size) -> tuple[slice, ...]:
    """The box of an array (C, *spatial), normalised, outside which each channel has its lowest value everywhere.

    That is the air around a patient, which `ct` clips to one value, and the zeros around a masked brain. The box is
    an eighth of a patch wider on each side and at least as large as a patch, as far as the array goes.
    """
    seen = np.zeros(array.shape[1:], bool)
    for channel in array:
        seen |= channel > channel.min()
    if not seen.any():
        return tuple(slice(0, n) for n in array.shape[1:])
    return tuple(_widened(seen, axis, patch) for axis, patch in enumerate(patch_size))


def _widened(seen: np.ndarray, axis: int, patch: int) -> slice:
    """Where something is seen along an axis, with the margin and the least length of `foreground`."""
    size = seen.shape[axis]
    where = np.flatnonzero(seen.any(axis=tuple(n for n in range(seen.ndim) if n != axis)))
    low, high = max(0, int(where[0]) - patch // 8), min(size, int(where[-1]) + 1 + patch // 8)
    length = max(high - low, min(patch, size))
    low = min(max(0, (low + high - length) // 2), size - length)
    return slice(low, low + length)
