"""What a run will need before it runs: parameters, memory, floating-point operations, hours, money."""
