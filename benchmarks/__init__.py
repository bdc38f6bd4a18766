"""Who is fastest, what is the bottleneck: measurements, their results and their report."""
