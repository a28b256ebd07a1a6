"""What the stages share: the study, a run, and what is read of earlier stages."""
