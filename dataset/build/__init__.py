"""The stages that build a data set: load, select, augment, write; and the makers of Sudoku and mazes."""
