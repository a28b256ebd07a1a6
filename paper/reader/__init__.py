"""The one reader of results/STUDY: every file that study.json promises, typed, or a refusal."""
