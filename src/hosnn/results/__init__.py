"""Results as values, with their files and statistics.  Nothing here runs a model or imports torch."""
