"""The front door opens quickly: no TensorFlow before it is needed."""

import subprocess
import sys


def test_front_door_imports_no_heavy_library() -> None:
    code = (
        "import sys, gotorb.classifier, gotorb.models, gotorb.eyeball.server\n"
        "print(sorted({'tensorflow', 'keras', 'sklearn', 'mlflow', 'matplotlib', 'scipy.stats'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
