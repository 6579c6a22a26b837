"""From answer probabilities to saved predictions and metrics."""
