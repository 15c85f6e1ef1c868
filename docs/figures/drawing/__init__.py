"""What drawings are made of: shapes, colours, grids."""
