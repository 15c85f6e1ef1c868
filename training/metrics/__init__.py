"""What a run measures: sums over slots, throughput, the lines of its log, and what a step should cost."""
