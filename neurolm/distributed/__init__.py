"""The only package that imports Ray, DeepSpeed and Optuna."""
