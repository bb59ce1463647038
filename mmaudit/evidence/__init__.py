"""The only code that runs a model to diagnose it: data, coalitions, the table of what came out."""
