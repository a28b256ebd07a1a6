"""One file a stage of the pipeline; Sacred and the study file live here."""
