"""Stretches keep order and range, whatever the pixels are."""

import numpy as np
import pytest

from gotorb.stamps.images import STRETCHES, draw_strip


@pytest.mark.parametrize("stretch", STRETCHES)
def test_a_faint_source_stands_out_and_flat_layers_do_not_fail(stretch: str) -> None:
    layer = np.random.default_rng(1).normal(0, 1, (55, 55)).astype(np.float32)
    layer[25:30, 25:30] += 8
    strip = draw_strip(np.stack([layer, np.full_like(layer, 3.0)], axis=-1), stretch)
    assert strip.shape == (55, 110) and strip.dtype == np.uint8
    assert strip[25:30, 25:30].mean() > 1.5 * strip[:20, :20].mean()
    assert len(np.unique(strip[:, 55:])) == 1


def test_a_star_at_the_edge_does_not_dim_the_centre() -> None:
    layer = np.random.default_rng(1).normal(0, 1, (55, 55)).astype(np.float32)
    dim = draw_strip(layer[..., None], "percentile")
    layer[:8, :8] = 50_000
    bright = draw_strip(layer[..., None], "percentile")
    np.testing.assert_array_equal(bright[20:35, 20:35], dim[20:35, 20:35])
