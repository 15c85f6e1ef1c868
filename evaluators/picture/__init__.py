"""PNG of puzzles: one task with everything that is known of it, or some that a run has solved."""

from evaluators.picture.painter import draw_task as draw_task
