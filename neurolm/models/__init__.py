"""The model: tensors in, tensors out; torch and transformers only."""
