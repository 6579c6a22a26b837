"""Train NeuroLM, EEG as a foreign language for a causal language model, from recordings to answers."""
