"""Three stages and the one loop that trains them; runs without Ray."""
