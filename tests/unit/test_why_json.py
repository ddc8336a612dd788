"""The reasons of a score as json: plain values, null for what is not known."""

import json
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd

from gotorb.classifier.scored import Scored
from gotorb.visualise.why import Neighbour, Reason


def test_reason_becomes_plain_json() -> None:
    row = {"id": "a", "mag": np.float32(18.5), "realbogus": np.nan, "called_real": np.bool_(True), "n": np.int64(3)}
    scored = Scored(cast(Any, None), pd.DataFrame([row]), None, np.zeros((1, 2, 2, 1)))
    reason = Reason(
        scored=scored, flags=["edge"], neighbours=[Neighbour("b", np.int64(1), "mp", np.float32(0.5), "data:,")],
        slices=[{"name": "faint", "n": np.int64(0), "rate": np.nan}],
        others=[{"name": "x", "score": None, "problem": "size"}], threshold=0.25,
        scorer=cast(Any, SimpleNamespace(name="vgg6", version="1")), unusual=[],
    )  # fmt: skip
    known = json.loads(json.dumps(reason.as_dict(), allow_nan=False))
    assert known["row"] == {"id": "a", "mag": 18.5, "realbogus": None, "called_real": True, "n": 3}
    assert known["model"] == {"name": "vgg6", "version": "1", "threshold": 0.25}
    assert known["slices"] == [{"name": "faint", "n": 0, "rate": None}]
    assert known["neighbours"][0]["alike"] == 0.5 and known["others"][0]["problem"] == "size"
    assert known["flags"] == ["edge"]
