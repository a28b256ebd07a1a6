"""Images and epochs; nothing here knows of pruning."""
