"""What pretraining and test-time fine-tuning share: optimizers, schedule, the train state and its one step."""
