"""How building, opening, stepping, saving and memory grow with the number of puzzles."""
