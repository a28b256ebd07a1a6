"""What every other room stands on: errors, files, the machine, processes that work together."""
