"""A look inside a network: activity, errors of the membrane, stability, operations and their energy."""
