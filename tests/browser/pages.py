"""Detections made up for pages."""

import numpy as np
import pandas as pd

from gotorb.classifier.scored import Scored, _summarise
from gotorb.classifier.sources import NUMBERS, TEXTS, Detections
from gotorb.core import layout
from gotorb.evaluation.posterior import Scale

SIZE, THRESHOLD = 55, 0.5


def make_judged(n: int, *, text: str | None = None, n_samples: int = 20) -> Scored:
    """n made-up detections with samples; `text` stands in every text field."""
    rng = np.random.default_rng(3)
    stamps = rng.normal(0, 1, (n, SIZE, SIZE, len(layout.LAYERS))).astype(np.float32)
    stamps[:, 25:30, 25:30] += 20
    table = pd.DataFrame({name: rng.uniform(0, 20, n) for name in NUMBERS})
    table = table.assign(label=-1, realbogus=rng.random(n), cnn_realbogus=rng.random(n), missing_fraction=0.0)
    for name in TEXTS:
        table[name] = text if text is not None else [f"{name}-{row}" for row in range(n)]
    samples = rng.beta(2, 2, (n, 1)) * 0.9 + rng.random((n, n_samples)) * 0.1
    exposures = rng.normal(0, 1, (n, SIZE, SIZE, 3)).astype(np.float32)
    found = Detections(name=text or "night.fits", table=table, stamps=stamps, layers=layout.LAYERS, exposures=exposures)
    return Scored(found, _summarise(table, samples.mean(1), samples, Scale(THRESHOLD)), samples, stamps)
