"""The exception tree: everything gotorb raises on purpose.

::

    GotorbError
    ├── ConfigError        params.yaml, .env or a command-line value
    ├── SurveyError        where images and detections come from
    │   ├── DatabaseError      the gotophoto database
    │   ├── ImageError         one FITS file
    │   │   ├── OutsideStorage     its path leads out of the storage directory
    │   │   ├── MissingImage       there is no such file
    │   │   ├── TruncatedImage     shorter than its header declares
    │   │   ├── MissingPart        an HDU, column or header key is absent
    │   │   └── InconsistentImage  its place, time, grid or table cannot be right
    │   ├── PacketError        one alert packet
    │   │   └── SchemaUnknown      its schema is not available now
    │   └── StreamError        a stream of alert packets; `code` is the command's exit code
    │       ├── Refused            the brokers refuse the account
    │       ├── MostlyDead         most packets cannot be read
    │       └── JournalFailed      the stream's journal cannot be written
    ├── CatalogueError     minor planets, galaxies, variable stars
    │   └── LookupFailed       no answer: not the same as "nothing there"
    ├── DataError          a data set: csv, hdf5, labels, stamps
    ├── ModelError         a model or its meta file
    │   └── NotFinite          its scores are NaN or infinite
    └── TrackingError      experiment tracking and registry

A message has four parts: what is wrong, the value, where, and what to do about it.
"""

from collections.abc import Sequence


class GotorbError(Exception):
    """Base of all errors that a user can act on; the message is one line."""


class ConfigError(GotorbError):
    """A parameter, setting or command-line value is wrong."""


class SurveyError(GotorbError):
    """The survey's images or detections are not available."""


class DatabaseError(SurveyError):
    """The gotophoto database cannot be reached or queried."""


class ImageError(SurveyError):
    """One FITS file cannot be used; `state` is the image's state in a labelling run."""

    state = "unreadable"


class OutsideStorage(ImageError):
    """A path of the survey leads out of its storage directory."""

    state = "outside_root"


class MissingImage(ImageError):
    """There is no such file."""

    state = "missing"


class TruncatedImage(ImageError):
    """A FITS file is shorter than its headers declare."""

    state = "truncated"


class MissingPart(ImageError):
    """An HDU, a table column or a header key is missing in a FITS file."""

    state = "missing_part"


class InconsistentImage(ImageError):
    """Place, time, grid or table of an image contradict each other; its labels would be wrong."""

    state = "inconsistent"


class PacketError(SurveyError):
    """One alert packet cannot be used."""


class SchemaUnknown(PacketError):
    """The schema of an alert packet is not available now; the packet may be good."""


class StreamError(SurveyError):
    """A stream of alert packets cannot continue; `code` is the exit code of the command."""

    code = 1


class Refused(StreamError):
    """The brokers refuse the account or its rights."""

    code = 2


class MostlyDead(StreamError):
    """Most packets of a stream cannot be read."""

    code = 3


class JournalFailed(StreamError):
    """The journal of a stream cannot be read or written."""


class CatalogueError(GotorbError):
    """A catalogue of known objects cannot be used."""


class LookupFailed(CatalogueError):
    """A catalogue gave no answer, which is not the answer "none there"."""

    state = "no_lookup"


class DataError(GotorbError):
    """A data set is missing, inconsistent or unfit for its use."""


class ModelError(GotorbError):
    """A model file or its meta file is missing, broken or does not fit the data."""


class NotFinite(ModelError):
    """A model gives NaN or infinity; `rows` are the numbers of the stamps.

    Parameters
    ----------
    text : str
        Message.
    rows : sequence of int
        Numbers of the stamps.
    """

    def __init__(self, text: str, rows: Sequence[int] = ()) -> None:
        super().__init__(text)
        self.rows = list(rows)


class TrackingError(GotorbError):
    """The tracking store or model registry refused a request, or an entry is missing."""
