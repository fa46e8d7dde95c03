"""What people look at: lines, figures, pages."""
