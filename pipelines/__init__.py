"""One thin script per DVC stage: read parameters, call the library, record the run."""
