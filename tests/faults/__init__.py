"""Random faults on real clusters and a real engine, by seed; see `campaign` and `schedule`."""
