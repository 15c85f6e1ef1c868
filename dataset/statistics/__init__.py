"""What a data set contains, as text and as a picture."""
