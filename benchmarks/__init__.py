"""What is fast, against what: commands that measure, and the figures they found."""
