"""Makes a plain network fast, from outside: CPU kernel, compilation, data parallelism."""
