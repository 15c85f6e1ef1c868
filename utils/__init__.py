"""Small helpers that could stand alone: ranks, files, progress, timers, logs, command lines."""
