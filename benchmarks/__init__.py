"""Speed and size, compared with a reference program or a stated limit in the same run.

``python -m benchmarks`` runs all, ``python -m benchmarks NAME...`` some; the rows of the others are kept.
A benchmark is a file with ``measure() -> list[Row]`` and one line in `BENCHMARKS`.
"""

BENCHMARKS = {
    "help_seconds": "help",
    "stamps": "stamps",
    "label_checks": "checks",
    "minor_planets_night": "minor_planets",
    "posterior": "posterior",
    "score": "score",
    "features": "features",
    "archive_score": "archive",
    "image_score": "image",
    "packets": "packets",
    "streams": "streams",
    "visualise": "visualise",
    "report": "report",
    "train": "training",
    "logging": "tracking",
    "eyeball": "eyeball",
    "visit_cpu_seconds": "visit",
    "memory_10x": "memory",
    "memory_100k": "scale",
    "repro_seconds": "repro",
}
"""Name on the command line -> module."""
