"""Studies: the pipeline with other parameters, and code that only they use; a DVC project of its own."""
