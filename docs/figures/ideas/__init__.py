"""The drawings that explain an idea; what they show is computed by the code that they explain."""
