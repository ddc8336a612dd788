"""CPU time of one simulated visit of 1024 x 1024 pixels, up to its FITS files."""

import tempfile
import time
from pathlib import Path

import pandas as pd
from threadpoolctl import threadpool_limits

from benchmarks.rows import Row
from gotorb.core.params import SurveyParams
from gotorb.core.settings import LA_PALMA
from gotorb.simulate import catalogues, images, plan
from gotorb.simulate.scene import make_scene
from gotorb.simulate.visit import make_setup, run_visit

SEED = 1
LIMIT_CPU_SECONDS = 3.0


def measure() -> list[Row]:
    """A field with its template and three visits, over three; the first field only warms caches."""
    fields = plan.plan_survey(SurveyParams(n_fields=3, n_visits=3, size=1024), SEED)
    with threadpool_limits(1):
        seconds = [_visit_seconds(field) for field in fields]
    return [Row("visit_cpu_seconds", sum(seconds[1:]) / len(seconds[1:]), LIMIT_CPU_SECONDS, "CPU s")]


def _visit_seconds(field: plan.Field) -> float:
    known = catalogues.generate_asteroids([field], SurveyParams(size=1024), SEED, LA_PALMA)
    asteroids = known.take(catalogues.choose_asteroids(known, [field], LA_PALMA)[0][0])
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        setup = make_setup(make_scene(field, asteroids, SEED, LA_PALMA))
        for visit in field.visits:
            result = run_visit(setup, visit)
            unscored = pd.DataFrame(0.5, index=range(len(result.truth)), columns=["realbogus", "cnn_realbogus"])
            images.write_visit(Path(folder), field, result, unscored)
    return (time.process_time() - started) / len(field.visits)
