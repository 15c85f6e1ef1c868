"""Scores, and solves, puzzles with one right answer: Sudoku and mazes."""
