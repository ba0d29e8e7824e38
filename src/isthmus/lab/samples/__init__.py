"""Small programs that stand for well-known sample images."""
