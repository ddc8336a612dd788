"""Settings under which the label code sees the embedded survey, or the real one of .env."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gotorb.settings import Settings, read_settings
from gotorb.simulate.archive import open_archive


@contextmanager
def survey_environment(source: str, survey_dir: Path) -> Iterator[Settings]:
    """Put the survey's settings into the environment while the block runs.

    Parameters
    ----------
    source : str
        ``embedded`` serves the simulated survey from its own database, whatever .env says, so that no simulated
        row can reach a real one; any other source leaves .env in force.
    survey_dir : Path
        Folder of the simulated survey.
    """
    settings = read_settings()
    if source != "embedded":
        yield settings
        return
    nobody = dict.fromkeys(("gotophoto_db_host", "gotophoto_db_port", "catshtm_dir", "gotorb_mpc_catalogue"), "")
    with open_archive(survey_dir, settings.with_values(**nobody)) as served, served.in_environment():
        yield served
