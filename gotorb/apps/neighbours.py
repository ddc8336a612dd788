"""Labelled stamps that a network finds most like a given one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gotorb import layout
from gotorb.apps.inline_strips import draw_strips
from gotorb.apps.scoring import Scorer, fit_stamps
from gotorb.dataset.store import Dataset, open_dataset
from gotorb.errors import DataError
from gotorb.stamps.batches import Stamps
from gotorb.survey.pixels import crop_stamps

N_NEAREST = 3
SHOWN_PIXELS = 31


@dataclass(frozen=True)
class Neighbourhood:
    """Labelled rows of a data set and their latent vectors of unit length."""

    data: Dataset
    rows: np.ndarray
    vectors: np.ndarray
    scorer: Scorer

    def find(self, stamps: np.ndarray, n: int = N_NEAREST) -> list[list[Neighbour]]:
        """The nearest labelled rows of each stamp (as the model takes it), the most alike first."""
        vectors = _unit_vectors(self.scorer, stamps)
        alike = vectors @ self.vectors.T
        n = min(n, alike.shape[1])
        nearest = np.argsort(-alike, axis=1, kind="stable")[:, :n]
        wanted, place = np.unique(nearest, return_inverse=True)
        pictures = self._pictures(self.rows[wanted])
        place = place.reshape(nearest.shape)
        table = self.data.table
        return [
            [
                Neighbour(
                    table["id"].iloc[self.rows[one]], int(table["label"].iloc[self.rows[one]]),
                    str(table["metalabel"].iloc[self.rows[one]]), float(alike[row, one]), pictures[place[row, column]],
                )
                for column, one in enumerate(nearest[row])
            ]
            for row in range(len(stamps))
        ]  # fmt: skip

    def _pictures(self, rows: np.ndarray) -> list[str]:
        layer = "difference" if "difference" in self.data.layers else self.data.layers[0]
        stamps = self.data.read_stamps(rows, [layer])
        return draw_strips(crop_stamps(stamps, min(SHOWN_PIXELS, self.data.size)))


@dataclass(frozen=True)
class Neighbour:
    """A labelled row: its id, label, metalabel, likeness (cosine of the latent vectors), and a picture."""

    id: str
    label: int
    metalabel: str
    alike: float
    picture: str


def open_neighbourhood(scorer: Scorer, data_dir: Path | str) -> Neighbourhood:
    """Latent vectors of all labelled rows of a data set, of its training rows where it is divided.

    Raises
    ------
    DataError
        If no row is labelled, or the data set's stamps do not fit the model.
    """
    data = open_dataset(data_dir)
    mask = data.labels != layout.UNKNOWN
    if layout.SPLIT_COLUMN in data.table:
        mask &= (data.table[layout.SPLIT_COLUMN] == "train").to_numpy()
    rows = np.flatnonzero(mask)
    if len(rows) == 0:
        raise DataError(f"no labelled row in {data_dir}; give the data set that the model was trained on")
    stamps = (fit_stamps(scorer, part, data.layers, data_dir) for _, part in data.batches(rows))
    return Neighbourhood(data, rows, _unit_vectors(scorer, stamps), scorer)


def _unit_vectors(scorer: Scorer, stamps: Stamps) -> np.ndarray:
    from gotorb.training.inference import latent_vectors

    vectors = latent_vectors(scorer.model, stamps)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)


def describe(neighbours: list[Neighbour]) -> str:
    """One line for people.

    >>> describe([Neighbour("a", 1, "mp", 0.98, ""), Neighbour("b", 0, "randjunk", 0.9, "")])
    'mp 0.98, randjunk 0.90'
    """
    return ", ".join(f"{one.metalabel or one.label} {one.alike:.2f}" for one in neighbours)


__all__ = ["Neighbour", "Neighbourhood", "describe", "open_neighbourhood"]
