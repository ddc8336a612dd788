"""Stamps of one large image and its exposures: compared with plain astropy, and with the limit of the disk format."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pandas as pd
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

from benchmarks.plain_stamps import EXPOSURE, STACKED, cutout2d_stamps, open_planes, plain_stamps, sliced_stamps
from benchmarks.rows import HERE, Row
from gotorb.core import layout
from gotorb.labels.shards import write_shard
from gotorb.stamps.layers import Extensions, Planes, cut_planes
from gotorb.survey.fits import open_frame

NY, NX, SIZE, N_EXPOSURES, N_CARDS = 6132, 8176, 55, 4, 150
COUNTS, N_REFERENCE, N_REPEATS = (1000, 100, 10), 20, 5
MIB = 1 << 20


class Files(NamedTuple):
    """A difference image and its exposures."""

    stacked: Path
    exposures: list[Path]


def measure() -> list[Row]:
    """All rows, on files that are written for it (1.7 GB in the temporary folder)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files, compressed = write_files(folder)
        sky = choose_positions(files)
        return [
            *measure_plain(files, sky),
            *measure_compressed(compressed, sky),
            measure_io(files, sky, folder),
            measure_memory(folder),
        ]


def measure_plain(files: Files, sky: SkyCoord) -> list[Row]:
    """Stamps per CPU second for each number of detections, next to the plain way and competent ones."""
    few = sky[:N_REFERENCE]
    with open_planes(*files) as planes:
        plain_stamps(planes, few[:1], size=SIZE)
        reference, seconds = timed(lambda: plain_stamps(planes, few, size=SIZE))
    check_equal(cut(files, few), reference)
    rates = {n: n / median_seconds(lambda n=n: cut(files, sky[:n])) for n in COUNTS}
    rows = [Row(f"stamps_{n}", rate, N_REFERENCE / seconds, "stamps/CPU s") for n, rate in rates.items()]
    return [*rows, *measure_competent(files, sky, rates[len(sky)])]


def measure_competent(files: Files, sky: SkyCoord, rate: float) -> list[Row]:
    """The same rate next to programs that parse each plane's WCS once, and to copying the stamps' bytes."""
    ways = {"cutout2d": cutout2d_stamps, "slices": sliced_stamps}
    rows = []
    for name, way in ways.items():

        def work(way: Callable[..., np.ndarray] = way) -> np.ndarray:
            with open_planes(*files) as planes:
                return way(planes, sky, size=SIZE)

        check_equal(cut(files, sky), work())
        rows.append(Row(f"stamps_{len(sky)}_{name}", rate, len(sky) / median_seconds(work), "stamps/CPU s"))
    limit = len(sky) / median_seconds(lambda: copy_planes(files, sky))
    return [*rows, Row(f"stamps_{len(sky)}_copy", rate, limit, "stamps/CPU s")]


def measure_compressed(files: Files, sky: SkyCoord) -> list[Row]:
    """The same on tile-compressed files, compared with the plain way and with decompressing whole planes alone."""
    n, few = len(sky), sky[:N_REFERENCE]
    seconds = [timed(lambda: cut(files, sky))[1] for _ in range(2)]
    with open_planes(*files) as planes:
        _, decompression = timed(lambda: [plane.data for plane in planes])
        reference, cutting = timed(lambda: plain_stamps(planes, few, size=SIZE))
    check_equal(cut(files, few), reference)
    rate, plain = n / min(seconds), n / (decompression + cutting * n / N_REFERENCE)
    return [
        Row(f"stamps_{n}_fz", rate, plain, "stamps/CPU s"),
        Row(f"stamps_{n}_fz_whole", rate, n / decompression, "stamps/CPU s"),
    ]


def measure_io(files: Files, sky: SkyCoord, folder: Path) -> Row:
    """Cutting, layers and a shard on disk, compared with copying the same bytes in and out."""
    table = pd.DataFrame({"image_id": "image", "ra": sky.ra.deg, "dec": sky.dec.deg})
    shard, copy = folder / "shard.h5", folder / "copy.h5"
    ours = median_seconds(lambda: write_shard(shard, table, cut(files, sky).layers()))
    floor = median_seconds(lambda: copy_bytes(files, sky, copy))
    return Row(f"stamps_{len(sky)}_io", len(sky) / ours, len(sky) / floor, "stamps/CPU s")


def measure_memory(folder: Path) -> Row:
    """Growth of the peak from the fewer to the more detections, compared with the size of the additional stamps."""
    few, many = 100, 1000
    peaks = [peak_bytes(folder, n) for n in (few, many)]
    n_planes = len(STACKED) + N_EXPOSURES + len(layout.LAYERS)
    return Row("stamps_memory", (peaks[1] - peaks[0]) / MIB, (many - few) * SIZE**2 * 4 * n_planes / MIB, "MiB")


def write_files(folder: Path) -> tuple[Files, Files]:
    """The same planes plain and tile-compressed by rows, as fpack does."""
    rng = np.random.default_rng(1)
    written: list[tuple[Path, Path]] = []
    for number, names in enumerate([STACKED, *[(EXPOSURE,)] * N_EXPOSURES]):
        header = make_header(number)
        pixels = [rng.standard_normal((NY, NX), np.float32) * np.float32(5) + np.float32(100) for _ in names]
        paths = folder / f"{number}.fits", folder / f"{number}.fits.fz"
        for path, kind in zip(paths, (fits.ImageHDU, fits.CompImageHDU), strict=True):
            hdus = [kind(plane, header, name) for plane, name in zip(pixels, names, strict=True)]
            fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)
        written.append(paths)
    plain, compressed = zip(*written, strict=True)
    return Files(plain[0], list(plain[1:])), Files(compressed[0], list(compressed[1:]))


def make_header(number: int) -> fits.Header:
    """A header of a survey's usual length, with distortions; each exposure points a little elsewhere."""
    header = fits.Header({"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP"})
    header.update({"CRVAL1": 150 + 0.002 * number, "CRVAL2": 2 - 0.001 * number, "CRPIX1": NX / 2, "CRPIX2": NY / 2})
    header.update({"CD1_1": -1.24 / 3600, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 1.24 / 3600, "A_ORDER": 3, "B_ORDER": 3})
    header.update({"A_2_0": 1e-7, "A_0_2": 2e-7, "A_3_0": 1e-11, "B_2_0": -1e-7, "B_1_1": 1e-7, "B_0_3": 1e-11})
    header.update({f"KEY{card:05d}": (card * 1.5, "a comment of ordinary length") for card in range(N_CARDS)})
    return header


def choose_positions(files: Files) -> SkyCoord:
    """Detections all over the image, to its very edges."""
    x, y = np.random.default_rng(3).uniform(0, [[NX], [NY]], (2, max(COUNTS)))
    return SkyCoord.from_pixel(x, y, WCS(fits.getheader(files.stacked, STACKED[-1])))


def cut(files: Files, sky: SkyCoord) -> Planes:
    """Our way, files opened and closed."""
    with open_frame(files.stacked) as frame:
        return cut_planes(frame, files.exposures, sky.ra.deg, sky.dec.deg, size=SIZE, extensions=Extensions())


def check_equal(planes: Planes, reference: np.ndarray) -> None:
    """Fail where a pixel differs from the plain way's."""
    stamps = np.concatenate([planes.stacked, planes.exposures], axis=-1)
    np.testing.assert_array_equal(stamps, reference, "stamps differ from the plain astropy way")


def copy_planes(files: Files, sky: SkyCoord) -> np.ndarray:
    """The least that has to be done: as many stamps of every plane read, and kept as native float32."""
    with fits.open(files.stacked) as hdus:
        places = [(files.stacked, hdus[name].fileinfo()["datLoc"]) for name in STACKED]
    with fits.open(files.exposures[0]) as hdus:
        places += [(exposure, hdus[EXPOSURE].fileinfo()["datLoc"]) for exposure in files.exposures]
    first = np.random.default_rng(4).integers(0, [[NY - SIZE], [NX - SIZE]], (2, len(sky)))
    corners = first[:, np.argsort(first[0])].T.tolist()
    stamps = np.empty((len(places), len(sky), SIZE, SIZE), np.float32)
    for (source, start), plane in zip(places, stamps, strict=True):
        image = np.asarray(np.memmap(source, ">f4", "r", start, (NY, NX)))
        for stamp, (y, x) in zip(plane, corners, strict=True):
            stamp[:] = image[y : y + SIZE, x : x + SIZE]
    return stamps


def copy_bytes(files: Files, sky: SkyCoord, path: Path) -> None:
    """The same, and as many bytes as the stamps' layers have written."""
    copy_planes(files, sky)
    with h5py.File(path, "w") as file:
        file["stamps"] = np.zeros((len(sky), SIZE, SIZE, len(layout.LAYERS)), np.float32)


def peak_bytes(folder: Path, n: int) -> int:
    """Peak memory of a fresh process that cuts n stamps."""
    command = [sys.executable, "-c", "import sys; from benchmarks.stamps import print_peak; print_peak(*sys.argv[1:])"]
    environment = os.environ | {"PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(
        [*command, str(folder), str(n)], stdout=subprocess.PIPE, text=True, check=True, env=environment
    )
    return int(done.stdout)


def print_peak(folder: str, n: str) -> None:
    """Cut n stamps and print the peak of this process's memory, mapped files included."""
    files = Files(Path(folder, "0.fits"), [Path(folder, f"{number + 1}.fits") for number in range(N_EXPOSURES)])
    cut(files, choose_positions(files)[: int(n)]).layers()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(int(status["VmHWM"].split()[0]) * 1024)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """The result of some work, and its CPU seconds."""
    started = time.process_time()
    result = work()
    return result, time.process_time() - started


def median_seconds(work: Callable[[], Any]) -> float:
    """CPU seconds of some work, once warm."""
    work()
    return float(np.median([timed(work)[1] for _ in range(N_REPEATS)]))
