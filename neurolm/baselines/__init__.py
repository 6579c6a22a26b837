"""Simple systems that a NeuroLM has to beat, on the same store and splits."""
