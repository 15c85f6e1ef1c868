"""The drawings of what runs have reached, made from the folders of runs."""
