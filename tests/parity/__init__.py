"""The same entries as the original makes, on a real engine."""
