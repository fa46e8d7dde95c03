"""From tables and arrays to points: reading, columns, classes, preprocessing."""
