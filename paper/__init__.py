"""Tables, figures and the report, made from the files under results/ alone."""
