"""Random faults on real clusters and a real engine, by seed. See `campaign` and `schedule`."""
