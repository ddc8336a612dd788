"""data_labels.csv and data_stamps.h5 as one thing."""
