"""Signals before any learning: numpy, scipy, mne and pyarrow; no torch."""
