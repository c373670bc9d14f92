"""What an evaluation found, as values: nothing here computes or imports torch."""
